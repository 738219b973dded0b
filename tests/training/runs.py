"""Runs train.py in processes of its own, on a tiny network."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.pairs import two_environments

ROOT = Path(__file__).resolve().parents[2]
TINY = [
    "--config=configs/train/squares_oracle.py", "--config.network.model.width=4",
    "--config.network.model.blocks=(1,)", "--config.network.model.stem_stride=4",
    "--config.batch_size=8", "--config.optimizer.warmup_steps=1", "--config.log_every=1",
]  # fmt: skip


def start(workdir, *arguments, config=TINY, **environment):
    """Starts a training in a process group of its own; its output can be read from the process."""
    cache = {"JAX_COMPILATION_CACHE_DIR": str(ROOT / ".pytest_cache/xla")}
    return subprocess.Popen(
        [sys.executable, "train.py", f"--workdir={workdir}", *config, *arguments], cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu", **cache, **environment},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def start_two(workdir, *arguments, second=(), **more):
    """Starts a training of two processes; the second one gets some arguments of its own."""
    return [
        start(workdir, *arguments, *own, **more, **found)
        for own, found in zip(((), second), two_environments(), strict=True)
    ]


def finish(process, status=0):
    """Waits for a training; returns what it wrote to stdout and stderr."""
    out, err = process.communicate(timeout=600)
    assert process.returncode == status, err
    return out, err


def curve(workdir, name="train/loss"):
    """Step -> value of a metric."""
    file = workdir / "metrics.jsonl"
    rows = [json.loads(line) for line in file.open() if line.endswith("\n")]
    return {row["step"]: row[name] for row in rows if name in row}
