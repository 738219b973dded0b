"""One device, eight, and two processes with two each compute the same."""

import socket

import pytest

from tests.training.runs import curve, finish, start

STEPS = "--config.steps=4"


def devices(count):
    return {"XLA_FLAGS": f"--xla_force_host_platform_device_count={count}"}


def test_the_loss_curve_does_not_depend_on_the_devices(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    runs = [start(tmp_path / "one", STEPS), start(tmp_path / "eight", STEPS, **devices(8))]
    for index in range(2):
        others = {
            "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}", "JAX_NUM_PROCESSES": "2",
            "JAX_PROCESS_ID": str(index),
        }  # fmt: skip
        runs.append(start(tmp_path / "two", STEPS, **devices(2), **others))
    outputs = [finish(run)[0] for run in runs]
    assert "The network is in" in outputs[2] and "network" not in outputs[3]  # one speaks for both
    wanted = curve(tmp_path / "one")
    assert len(wanted) == 4
    for other in ("eight", "two"):
        assert curve(tmp_path / other) == pytest.approx(wanted, rel=1e-5), other
        mae, same = (curve(tmp_path / name, "test/mae") for name in ("one", other))
        assert same == pytest.approx(mae, rel=1e-5), other
