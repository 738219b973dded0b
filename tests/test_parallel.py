import pytest

from diffcf_jax import parallel
from diffcf_jax.errors import UserError


def test_a_host_of_its_own_is_left_alone(monkeypatch):
    for variable in ("JAX_COORDINATOR_ADDRESS", "SLURM_STEP_NODELIST", "OMPI_COMM_WORLD_SIZE"):
        monkeypatch.delenv(variable, raising=False)
    parallel.initialize()
    assert (parallel.process_index(), parallel.process_count()) == (0, 1)
    parallel.wait_for_all("a point")
    assert parallel.gather("another", {"a": 1}) == [{"a": 1}]


def test_incomplete_variables(monkeypatch):
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "localhost:1")
    monkeypatch.delenv("JAX_NUM_PROCESSES", raising=False)
    with pytest.raises(UserError, match="JAX_NUM_PROCESSES must be a number"):
        parallel.initialize()


def test_peak_flops():
    class Device:
        def __init__(self, kind):
            self.device_kind = kind

    for kind, peak in (
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("TPU v5 lite", 197e12),
        ("TPU v5p", 459e12),
        ("cpu", None),
    ):
        assert parallel.peak_flops(Device(kind)) == peak
