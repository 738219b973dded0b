"""Figures in experiment trackers."""

import struct
import sys

import pytest
from tensorboardX.proto.event_pb2 import Event

from diffcf_jax.errors import UserError
from eval.metrics import trackers

SUMMARY = {
    "metrics": {"l1": {"mean": 0.25, "low": 0.2, "high": 0.3, "n": 4}, "r2": {"mean": None}},
    "control": {"l1": {"mean": 0.5}},
}


def events(path):
    data = path.read_bytes()
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        yield Event.FromString(data[12 : 12 + length])
        data = data[16 + length :]


def test_tensorboard(tmp_path):
    trackers.log_to("tensorboard", tmp_path, SUMMARY, {})
    (path,) = (tmp_path / "tensorboard").iterdir()
    found = {v.tag: v.simple_value for event in events(path) for v in event.summary.value}
    assert found == {"l1": 0.25, "control/l1": 0.5}


def test_what_is_not_there(monkeypatch):
    with pytest.raises(UserError, match="--log_to=paper: use tensorboard, wandb, mlflow"):
        trackers.check_trackers(["tensorboard", "paper"])
    monkeypatch.setitem(sys.modules, "wandb", None)  # as if it were not installed
    with pytest.raises(UserError, match="--log_to=wandb needs wandb: pip install wandb"):
        trackers.check_trackers(["wandb"])


def test_config_keys_are_flat_for_mlflow():
    config = {"seed": 0, "method": {"name": "ac-re", "tau": 5}}
    assert trackers._flat(config) == [("seed", 0), ("method.name", "ac-re"), ("method.tau", 5)]
