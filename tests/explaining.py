"""explain.py from the outside, on tiny networks."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from diffcf_jax import main
from diffcf_jax import run as run_module
from diffcf_jax.checkpoint.network import fingerprint
from tests import tiny

ROOT = Path(__file__).resolve().parents[1]


def save_networks(folder, method="acre"):
    """Saves a generator and a regressor, and returns the flags of a short run with them."""
    generator, steps = {
        "acre": (tiny.DDPM, {"method.tau": 1}),
        "diffae": (tiny.DIFFAE, {"method.inversion_steps": 10, "method.decode_steps": 2}),
        "hybrid": (tiny.DIFFAE, {"method.inversion_steps": 10, "method.decode_steps": 2}),
    }[method]
    if method == "hybrid":
        steps["refiner.checkpoint"] = tiny.save(folder / "refiner", tiny.DDPM)
    options = {
        "generator.checkpoint": tiny.save(folder / "generator", generator),
        "regressor.checkpoint": tiny.save(folder / "regressor", tiny.REGRESSOR),
        "oracle.checkpoint": "",
        "method.iterations": 4,
        **steps,
        "data.limit": 12,
        "batch_size": 4,
    }
    flags = [f"--config.{key}={value}" for key, value in options.items()]
    return [f"--config=configs/squares_{method}.py", *flags]


@contextlib.contextmanager
def compiled_once():
    """Runs with the same networks and options share an explainer, which keeps its programs."""
    make, made = run_module.Explainer, {}

    def shared(generator, regressor, method, refiner, **rest):
        networks = generator, regressor, refiner
        prints = [network and fingerprint(network.variables) for network in networks]
        key = repr([method, prints, rest])
        if key not in made:
            made[key] = make(generator, regressor, method, refiner=refiner, **rest)
        return made[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_module, "Explainer", shared)
        yield


def explain(out, *arguments):
    """Does in this process what explain.py does."""
    assert main.explain([f"--workdir={out}", *arguments]) == 0


def start(out, *arguments, **environment):
    """Starts explain.py."""
    return subprocess.Popen(
        [sys.executable, "explain.py", f"--workdir={out}", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
