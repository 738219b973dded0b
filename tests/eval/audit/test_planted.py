"""The truth that the benchmark compares the audit with, where it is known."""

import numpy as np
import pytest

from eval.audit.attributes import Attribute
from eval.audit.planted import draw, outside_square, real_changes
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
    moved, real, alone = real_changes(found, table, around)
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
        "planted": {"rows": rows, "flagged": ["background"], "truth": {"mean": 0.12}},
        "clean": {"rows": rows, "flagged": []},
    }
    left, right = draw(found).axes
    assert [text.get_text() for text in left.get_yticklabels()] == ["column", "background"]
    assert left.get_title() == "planted: 1 of 2 flagged"
    marks = [line for line in left.lines if line.get_label() == "real change"]
    assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in marks] == [(0.12, 1)]
    assert not [line for line in right.lines if line.get_label() == "real change"]
