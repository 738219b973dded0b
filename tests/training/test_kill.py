"""A training that is killed and told to stop ends like one that is left alone."""

import random
import signal
import time

import jax
import numpy as np

from diffcf_jax.checkpoint.store import load_network
from tests.training.runs import curve, finish, start

STEPS = 40
OFTEN = [f"--config.steps={STEPS}", "--config.save_every=1", "--config.evaluate_every=20"]


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
    alone, killed = start(whole, *OFTEN), start(parts, *OFTEN)

    first = random.randrange(3, 12)
    wait_for(lambda: last_step(parts) >= first, killed)
    saving = parts / "checkpoints"
    wait_for(lambda: any("tmp" in entry.name for entry in saving.iterdir()), killed)
    killed.send_signal(signal.SIGKILL)  # in the middle of a save
    killed.wait()

    stopped = start(parts, *OFTEN)
    second = random.randrange(first + 5, 30)
    wait_for(lambda: last_step(parts) >= second, stopped)
    stopped.send_signal(signal.SIGTERM)
    _, told = finish(stopped, status=75)
    assert "run the same command again" in told

    finish(start(parts, *OFTEN))
    finish(alone)
    networks = [load_network(workdir / "network") for workdir in (whole, parts)]
    jax.tree.map(np.testing.assert_array_equal, *(network.variables for network in networks))
    assert curve(parts) == curve(whole) and len(curve(whole)) == STEPS
