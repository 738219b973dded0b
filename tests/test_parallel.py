import os
import subprocess
import sys

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


@pytest.mark.parametrize(
    ("batch_size", "asked", "devices"),
    [("16", None, min(2, os.cpu_count())), ("5", None, 1), ("auto", None, 1), ("16", "4", 4)],
)
def test_a_cpu_is_split_where_the_batch_can_be(batch_size, asked, devices):
    environment = {k: v for k, v in os.environ.items() if k != "JAX_NUM_CPU_DEVICES"}
    if asked:
        environment["JAX_NUM_CPU_DEVICES"] = asked
    found = subprocess.run(
        [
            sys.executable, "-c",
            "import sys, jax; from diffcf_jax import parallel; parallel.share_cpu(sys.argv[1]); "
            "print(jax.device_count()); parallel.share_cpu('2'); print(jax.device_count())",
            batch_size,
        ],
        env={**environment, "JAX_PLATFORMS": "cpu"}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert found.stdout.split() == [str(devices)] * 2
