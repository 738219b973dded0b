"""The tests run on the CPU unless JAX_PLATFORMS says otherwise, and spend little on compilation."""

import os
from importlib.metadata import version
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

# Read when JAX is imported, by the workers and by every process that a test starts. Programs that
# compile fast are kept, too: the tests make many of them anew.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
CACHE = Path(__file__).resolve().parents[1] / ".pytest_cache" / "xla"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
# Most programs run once, on tiny inputs. Without LLVM's optimisations they compile twice as fast.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
# XLA's older emitters of loops need two thirds of the CPU time of those that users have. XLA ends
# the process where it does not know a flag.
if version("jaxlib").startswith("0.10."):
    flags = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = f"{flags} --xla_cpu_use_fusion_emitters=false".strip()

# Where annotations name shapes, they are checked at every call: before anything imports these.
CHECKED = ["diffusion", "counterfactual.losses", "counterfactual.refinement"]
install_import_hook([f"diffcf_jax.{name}" for name in CHECKED], "beartype.beartype")


@pytest.fixture
def optimised():
    """Compiles as users do, in this process: for numbers that README and the docs promise."""
    import jax

    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


def pytest_addoption(parser):
    parser.addoption(
        "--originals",
        metavar="DIR",
        help="compare with all recorded vectors of the PyTorch originals in DIR, too",
    )


# Each worker takes the next file when it has nothing to do. With those first that take the most
# CPU time, all end at about the same time.
LONGEST = [
    "tests/test_resume.py",
    "tests/eval/test_parity.py",
    "tests/counterfactual/test_batching.py",
    "tests/test_shipped.py",
    "tests/test_commands.py",
    "tests/training/test_devices.py",
    "tests/test_api.py",
    "tests/test_run.py",
    "tests/counterfactual/test_options.py",
    "tests/models/test_unet.py",
    "tests/eval/test_speed.py",
    "tests/training/test_loop.py",
    "tests/test_wheel.py",
    "tests/training/test_kill.py",
    "tests/test_readme.py",
]


def pytest_configure(config):
    config.option.loadscopereorder = False  # the order of xdist is by the number of tests


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: [item.location[0] != name for name in LONGEST])
