"""Trains tiny networks on a folder of tiny images, here or in processes of their own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from diffcf_jax import main
from diffcf_jax.files import encode_png
from diffcf_jax.training.config import TrainConfig
from diffcf_jax.training.loop import train
from tests.pairs import two_environments

ROOT = Path(__file__).resolve().parents[2]
SIZE = 16
NETWORK = {
    "kind": "resnet",
    "model": {"width": 4, "blocks": (1,), "stem_kernel": 4, "stem_stride": 1, "stem_padding": 0},
    "image_size": SIZE,
}


def write_images(folder, count):
    """Makes `images/` of noise that gets brighter, and `labels.csv`; returns the folder."""
    (folder / "images").mkdir(parents=True)
    for i in range(count):
        brightest = 15 + 240 * i // count
        pixels = np.random.default_rng(i).integers(0, brightest, (SIZE, SIZE, 3), np.uint8)
        (folder / "images" / f"{i:03d}.png").write_bytes(encode_png(pixels))
    write_labels(folder, range(count))
    return folder


def write_labels(folder, labels):
    rows = [f"{i:03d}.png,{y}\n" for i, y in enumerate(labels)]
    (folder / "labels.csv").write_text("name,y\n" + "".join(rows))


def config_on(folder, **changes):
    """The config of a training on such a folder."""
    config = {
        "network": NETWORK,
        "data": {
            "name": "labelled", "path": str(folder / "images"),
            "labels": str(folder / "labels.csv"), "held_out": 0.3,
        },
        "optimizer": {"learning_rate": 1e-2}, "batch_size": 4, "ema_decay": 0.5, "augment": {},
        "seed": 0, "log_every": 1, "evaluate_every": 2, "save_every": 2, "objective": {},
        "steps": 6,
    }  # fmt: skip
    return TrainConfig.from_dict({**config, **changes})


def train_on(folder, workdir=None, **changes):
    """Trains on such a folder, into its `run` or another workdir."""
    return train(workdir or folder / "run", config_on(folder, **changes))


def command_line(folder, *arguments):
    """Flags of train.py for a training on such a folder; later ones count."""
    return [
        "--config=configs/train/oracle.py:tiny", f"--config.image_size={SIZE}",
        f"--config.data.path={folder / 'images'}", f"--config.data.labels={folder / 'labels.csv'}",
        "--config.network.model.width=4", "--config.network.model.blocks=(1,)",
        "--config.batch_size=8", "--config.optimizer.warmup_steps=1", "--config.log_every=1",
        *arguments,
    ]  # fmt: skip


def train_here(workdir, arguments):
    """What train.py does with these flags, in this process."""
    values, _ = main.train.parse([f"--workdir={workdir}", *arguments])
    return train(values.workdir, TrainConfig.from_dict(values.config.to_dict()))


def start(workdir, arguments, **environment):
    """Starts train.py in a process group of its own; its output can be read from the process."""
    return subprocess.Popen(
        [sys.executable, "train.py", f"--workdir={workdir}", *arguments], cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def start_two(workdir, arguments, second=(), **more):
    """Starts a training of two processes; the second one gets some arguments of its own."""
    return [
        start(workdir, [*arguments, *own], **more, **found)
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
