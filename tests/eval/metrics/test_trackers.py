"""Figures in experiment trackers."""

import io
import struct
import sys
import types

import numpy as np
import pytest
from PIL import Image
from tensorboardX.proto.event_pb2 import Event

from diffcf_jax.errors import UserError
from eval.metrics import trackers
from tests.report.runs import make_run

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
    pixels = np.full((4, 6, 3), 255, np.uint8)
    pixels[0, 0] = 1, 2, 3
    trackers.log_to("tensorboard", tmp_path, SUMMARY, {}, {"case_1": pixels})
    (path,) = (tmp_path / "tensorboard").iterdir()
    found = {v.tag: v for event in events(path) for v in event.summary.value}
    image = found.pop("case_1").image.encoded_image_string
    assert {tag: v.simple_value for tag, v in found.items()} == {"l1": 0.25, "control/l1": 0.5}
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(image))), pixels)


def test_other_trackers_get_the_same(tmp_path, monkeypatch):
    got = []

    class Run:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def log(self, values):
            got.append(values)

    def log(values):
        got.append(values)

    wandb = types.SimpleNamespace(init=lambda **_: Run(), Image=lambda pixels: pixels.shape)
    mlflow = types.SimpleNamespace(
        start_run=lambda run_name: Run(), log_params=log, log_metrics=log,
        log_image=lambda pixels, file: log({file: pixels.shape}),
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    pictures = {"case_1": np.zeros((4, 6, 3), np.uint8)}
    for name in ("wandb", "mlflow"):
        trackers.log_to(name, tmp_path, SUMMARY, {"seed": 0}, pictures)
    values = {"l1": 0.25, "control/l1": 0.5}
    shape = (4, 6, 3)
    assert got == [values | {"case_1": shape}, {"seed": 0}, values, {"case_1.png": shape}]


def test_pictures_are_those_of_the_page(tmp_path):
    make_run(tmp_path, n=10)
    found = trackers.pictures_of(tmp_path, 0.05, "years")
    assert list(found) == ["achieved_against_target", *(f"case_{i}" for i in range(1, 9))]
    assert all(x.dtype == np.uint8 and x.shape[2] == 3 and np.ptp(x) for x in found.values())


def test_what_is_not_there(monkeypatch):
    with pytest.raises(UserError, match="--log_to=paper: use tensorboard, wandb, mlflow"):
        trackers.check_trackers(["tensorboard", "paper"])
    monkeypatch.setitem(sys.modules, "wandb", None)  # as if it were not installed
    with pytest.raises(UserError, match="--log_to=wandb needs wandb: pip install wandb"):
        trackers.check_trackers(["wandb"])


def test_config_keys_are_flat_for_mlflow():
    config = {"seed": 0, "method": {"name": "ac-re", "tau": 5}}
    assert trackers._flat(config) == [("seed", 0), ("method.name", "ac-re"), ("method.tau", 5)]
