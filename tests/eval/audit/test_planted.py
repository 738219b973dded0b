"""The truth that the benchmark compares the audit with, where it is known."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from diffcf_jax.errors import UserError
from diffcf_jax.workdir import write_config
from eval.audit.attributes import Attribute
from eval.audit.planted.benchmark import TASKS, benchmark, real_changes
from eval.audit.planted.faces import CORNER, MARK, mark_share, marks, paint, with_mark
from eval.audit.planted.figure import draw
from eval.audit.planted.squares import brighten, outside_square
from eval.audit.planted.task import Planted
from tests.eval.audit.linear import SIDE, subject

N = 30
AROUND = np.ones((SIDE, SIDE), bool)
AROUND[1:3, 1:3] = False


def test_the_real_change_is_that_of_the_background_alone():
    random = np.random.default_rng(0)
    grey, inside = random.uniform(0.3, 0.6, (2, N))
    images = np.where(AROUND[..., None], grey[:, None, None, None], inside[:, None, None, None])
    images = images + random.normal(0, 1e-4, (N, SIDE, SIDE, 3))
    # The regressor is the mean of the background plus twice that of the inside.
    share = np.where(AROUND, 1 / AROUND.sum(), 2 / (~AROUND).sum())[..., None] / 3
    weights = np.broadcast_to(share, (SIDE, SIDE, 3)).ravel()
    found = subject(images.reshape(N, -1), weights, np.zeros((N, SIDE * SIDE * 3)))
    table = [Attribute("background", grey), Attribute("inside", inside)]
    around = np.broadcast_to(AROUND, (N, SIDE, SIDE))
    planted = Planted("background", Path(), {}, around, partial(brighten, around))
    moved, real, alone = real_changes(found, table, planted)
    # A step is a standard deviation of the codes along the direction: here that of the grey.
    assert moved == pytest.approx(grey.std(), rel=0.05)
    assert real == pytest.approx(moved, abs=1e-4)
    assert alone == pytest.approx(moved, abs=1e-4)


def test_the_background_is_what_the_square_leaves():
    mask = outside_square(10, 20)
    assert mask.sum() == 64 * 64 - 12 * 12
    assert not mask[10:22, 20:32].any() and mask[9, 20] and mask[22, 31]


def test_the_figure_shows_every_direction_and_the_truth():
    def row(name, verdict):
        return {"name": name, "verdict": verdict, "effect": {"mean": 0.1, "low": 0.0, "high": 0.2}}

    rows = [row("background", "flagged"), row("column", "still")]
    found = {
        "planted": {
            "rows": rows, "flagged": ["background"], "feature": rows[0], "unit": "years",
            "truth": {"effect": {"mean": 0.12}},
        },
        "clean": {"rows": rows, "flagged": []},
    }  # fmt: skip
    left, right = draw(found).axes
    assert [text.get_text() for text in left.get_yticklabels()] == ["column", "background"]
    assert left.get_title() == "planted: 1 of 2 flagged"
    assert left.get_xlabel() == "change of the prediction by a step (years)"
    marks = [line for line in left.lines if line.get_label() == "real change"]
    assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in marks] == [(0.12, 1)]
    assert not [line for line in right.lines if line.get_label() == "real change"]


def test_a_mark_comes_with_age_or_with_nothing():
    ages = np.random.default_rng(5).uniform(10, 80, 2000)
    older = ages > np.median(ages)
    planted, clean = (marks(kind, ages, seed=1) for kind in ("planted", "clean"))
    assert planted[older].mean() == pytest.approx(0.9, abs=0.03)
    assert planted[~older].mean() == pytest.approx(0.1, abs=0.03)
    assert clean[older].mean() == pytest.approx(0.5, abs=0.05)
    assert clean[~older].mean() == pytest.approx(0.5, abs=0.05)


def test_the_share_of_a_mark_is_what_was_painted():
    photographs = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8)
    marked = paint(photographs, np.array([True, False, True]))
    assert (marked[0][CORNER] == MARK).all() and CORNER.sum() == 256
    np.testing.assert_array_equal(marked[0][~CORNER], photographs[0][~CORNER])
    np.testing.assert_array_equal(marked[1], photographs[1])
    plain, base = photographs / np.float32(255), np.zeros((3, 64, 64, 3), np.float32)
    np.testing.assert_allclose(mark_share(marked / np.float32(255), plain), [1, 0, 1], atol=1e-6)
    part = np.array([0.0, 0.3, 1.0])
    made = with_mark(base, plain, part)
    np.testing.assert_allclose(mark_share(made, plain), part, atol=1e-6)
    assert not made[:, ~CORNER].any()


def test_a_workdir_holds_one_benchmark(tmp_path):
    write_config(tmp_path, {"task": "squares", "images": 16, "random": 8})
    with pytest.raises(UserError, match=r"another benchmark: images \(16 there, 20 here\)"):
        benchmark(tmp_path, "squares", images=20)


def test_faces_are_fetched_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="faces/train is not here: run `diffcf fetch faces` first"):
        TASKS["faces"](tmp_path / "out", 16, 0)
    assert not (tmp_path / "out").exists()
