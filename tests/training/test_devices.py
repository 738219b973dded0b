"""One device, eight, and two processes with two each compute the same, and the two end together."""

import signal
import time

import numpy as np
import pytest

from diffcf_jax.data.labelled import is_held_out
from diffcf_jax.data.loader import batch_rows
from tests.training.runs import (
    command_line,
    curve,
    finish,
    start,
    start_two,
    train_here,
    write_images,
)

COUNT = 240


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("data"), COUNT)


def devices(count):
    return {"JAX_NUM_CPU_DEVICES": f"{count}"}


def test_the_loss_curve_does_not_depend_on_the_devices(folder, tmp_path):
    config = command_line(folder, "--config.steps=4")
    runs = [start(tmp_path / "eight", config, **devices(8))]
    runs += start_two(tmp_path / "two", config, **devices(2))
    train_here(tmp_path / "one", config)
    outputs = [finish(run)[0] for run in runs]
    assert "The network is in" in outputs[1] and "network" not in outputs[2]  # one speaks for both
    wanted = curve(tmp_path / "one")
    assert len(wanted) == 4
    for other in ("eight", "two"):
        assert curve(tmp_path / other) == pytest.approx(wanted, rel=1e-5), other
        mae, same = (curve(tmp_path / name, "test/mae") for name in ("one", other))
        assert same == pytest.approx(mae, rel=1e-5), other


@pytest.mark.parametrize("failing", [0, 1])
def test_an_error_in_one_process_ends_the_other(folder, tmp_path, failing):
    wrong = "--config.accumulate=3"
    everybody, second = ([wrong], ["--config.accumulate=1"]) if failing == 0 else ([], [wrong])
    runs = start_two(tmp_path, command_line(folder, *everybody), second=second)
    began = time.monotonic()
    told = [finish(run, status=2)[1] for run in runs]
    assert time.monotonic() - began < 60
    sentence = "config.batch_size=8 must be a multiple of 2 devices x config.accumulate=3."
    assert f"error: {sentence}" in told[failing]
    assert f"error: Process {failing} of this run has ended: {sentence}" in told[1 - failing]


def test_two_processes_stop_together_and_go_on(tmp_path):
    folder, workdir = write_images(tmp_path / "data", COUNT), tmp_path / "run"
    runs = start_two(workdir, command_line(folder, "--config.steps=100000"))
    while not (workdir / "metrics.jsonl").exists() or max(curve(workdir), default=0) < 3:
        assert runs[0].poll() is None, runs[0].communicate()
        time.sleep(0.01)
    runs[1].send_signal(signal.SIGTERM)
    told = [finish(run, status=75)[1] for run in runs]
    (step,) = [int(entry.name) for entry in (workdir / "checkpoints").iterdir()]
    assert all(f"Stopped and saved after {step} of 100000 updates" in text for text in told)

    names = [f"{i:03d}.png" for i in range(COUNT)]
    training = np.array(names)[~is_held_out(names, 0.1)]
    row = batch_rows(len(training), 8, seed=2, update=step)[-1]  # which the second process reads
    (folder / "images" / training[row]).write_bytes(b"no image")
    runs = start_two(workdir, command_line(folder, f"--config.steps={step + 2}"))
    outputs = [finish(run)[0] for run in runs]
    assert "1 files could not be read" in outputs[0] and "files" not in outputs[1]
