import json

import jax
import numpy as np
import pytest

from diffcf_jax.checkpoint.store import load_network
from diffcf_jax.errors import UserError
from diffcf_jax.training.loop import batch_indices, train
from tests import tiny

CONFIG = dict(
    network=tiny.REGRESSOR,
    data={"name": "squares"},
    optimizer={"learning_rate": 1e-3},
    batch_size=4,
    ema_decay=0.9,
    augment={"flips": True},
    seed=0,
    log_every=1,
    evaluate_every=4,
    save_every=2,
    objective={},
)


def test_batches_depend_on_seed_and_step_only():
    stream = batch_indices(10, 3, seed=1, start=0)
    rows = [next(stream) for _ in range(9)]
    for start in (1, 3, 8):
        np.testing.assert_array_equal(next(batch_indices(10, 3, 1, start)), rows[start])
    epoch = np.concatenate(rows[:3])
    assert len(set(epoch)) == 9 and not np.array_equal(epoch, np.concatenate(rows[3:6]))
    with pytest.raises(UserError, match="batch_size=11"):
        next(batch_indices(10, 11, 0, 0))


def test_a_resumed_run_ends_like_an_uninterrupted_one(tmp_path):
    train(tmp_path / "whole", steps=4, **CONFIG)
    train(tmp_path / "parts", steps=2, **CONFIG)
    train(tmp_path / "parts", steps=4, **CONFIG)
    whole, parts = (load_network(tmp_path / name / "network") for name in ("whole", "parts"))
    jax.tree.map(np.testing.assert_array_equal, whole.variables, parts.variables)
    lines = [json.loads(line) for line in (tmp_path / "parts" / "metrics.jsonl").open()]
    assert [line["step"] for line in lines if "train/loss" in line] == [1, 2, 3, 4]
    assert lines[-1]["test/mae"] > 0


def test_another_network_in_the_workdir_is_refused(tmp_path):
    train(tmp_path, steps=2, **CONFIG)
    other = {**tiny.REGRESSOR, "model": {**tiny.REGRESSOR["model"], "width": 8}}
    with pytest.raises(UserError, match="does not fit this config"):
        train(tmp_path, steps=4, **{**CONFIG, "network": other})


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    with pytest.raises(UserError, match="step [12]; the last good checkpoint is of step 0"):
        train(tmp_path, steps=2, **{**CONFIG, "optimizer": {"learning_rate": float("inf")}})
