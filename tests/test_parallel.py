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
