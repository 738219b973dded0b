"""A training that is killed and told to stop ends like one that is left alone."""

import random
import signal
import time

import jax
import numpy as np

from diffcf_jax.checkpoint.store import load_network
from tests.training.runs import command_line, curve, finish, start, train_here, write_images

STEPS = 30


def wait_for(condition, process):
    end = time.monotonic() + 300
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end
        time.sleep(0.002)


def last_step(workdir):
    return max(curve(workdir), default=0) if (workdir / "metrics.jsonl").exists() else 0


def test_killed_stopped_and_resumed_is_the_same_to_the_last_bit(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    steps = [f"--config.steps={STEPS}", "--config.evaluate_every=15"]
    config = command_line(write_images(tmp_path / "data", 120), *steps)
    often = [*config, "--config.save_every=1"]

    killed = start(parts, often)
    first = random.randrange(3, 12)
    wait_for(lambda: last_step(parts) >= first, killed)
    saving = parts / "checkpoints"
    wait_for(lambda: any("tmp" in entry.name for entry in saving.iterdir()), killed)
    killed.send_signal(signal.SIGKILL)  # in the middle of a save
    killed.wait()

    stopped = start(parts, often)
    second = random.randrange(first + 5, 25)
    wait_for(lambda: last_step(parts) >= second, stopped)
    stopped.send_signal(signal.SIGTERM)
    _, told = finish(stopped, status=75)
    assert "run the same command again" in told

    train_here(parts, often)
    train_here(whole, config)
    networks = [load_network(workdir / "network") for workdir in (whole, parts)]
    jax.tree.map(np.testing.assert_array_equal, *(network.variables for network in networks))
    assert curve(parts) == curve(whole) and len(curve(whole)) == STEPS
