"""explain.py from the outside, on tiny networks."""

import os
import subprocess
import sys
from pathlib import Path

from tests import tiny

ROOT = Path(__file__).resolve().parents[1]


def save_networks(folder):
    """Saves a generator and a regressor, and returns the flags of a short run with them."""
    tiny.save(folder / "ddpm", tiny.DDPM)
    tiny.save(folder / "regressor", tiny.REGRESSOR)
    options = {
        "generator.checkpoint": folder / "ddpm",
        "regressor.checkpoint": folder / "regressor",
        "oracle.checkpoint": "",
        "method.iterations": 4,
        "method.tau": 1,
        "data.limit": 12,
        "batch_size": 4,
    }
    return [f"--config.{key}={value}" for key, value in options.items()]


def start(out, *arguments, **environment):
    """Starts explain.py."""
    command = [sys.executable, "explain.py", "--config=configs/squares_acre.py", f"--workdir={out}"]
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".pytest_cache/xla"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    return subprocess.Popen(
        [*command, *arguments],
        cwd=ROOT,
        env={**os.environ, **cache, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
