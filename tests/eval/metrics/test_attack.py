"""The control's attack on a regressor whose gradient is known: the mean of all values."""

import dataclasses

import numpy as np
import pytest

from diffcf_jax.regressors.readings import Reader
from diffcf_jax.units import Unit
from eval.metrics.attack import LARGEST_STEP, attacked
from eval.metrics.batch import Batch
from eval.metrics.regressor import Judge

LEVELS = np.random.default_rng(0).integers(80, 120, (40, 4, 4, 3))  # more images than slots


@pytest.fixture(scope="module")
def judge():
    unit = Unit("percent", 0.0, 100.0)
    return Judge(Reader("mean", lambda v, x: v * x.mean((1, 2, 3)), np.float32(1), unit))


def batch(levels, targets, answer=1):
    images = (levels / 255).astype(np.float32)
    return Batch([{"target": y, "answer": answer} for y in targets], images, images, None)


def test_each_image_has_a_budget_of_its_own(judge):
    """Each step moves every value by 4/255, and the last one by what is left."""
    budget = 5
    wanted = np.arange(40) % 9 - 2  # levels to move by: -2 to 6 steps of 4, some beyond the budget
    means = LEVELS.mean((1, 2, 3))
    targets = [float(y) for y in 100 * (means + 4 * wanted) / 255]
    parts = [batch(LEVELS[i : i + 16], targets[i : i + 16]) for i in range(0, 40, 16)]
    found = list(attacked(iter(parts), judge, 0.1, budget))
    assert [len(part.rows) for part in found] == [16, 16, 8]
    images = np.concatenate([part.images for part in found])
    # Images are dithered, so a value can lie a level higher.
    moved = np.round(images * 255) - LEVELS
    reached = 4 * np.minimum(wanted, budget)
    assert np.abs(moved - reached[:, None, None, None]).max() <= 1
    assert moved.mean((1, 2, 3)) == pytest.approx(reached, abs=0.02)
    # The gradient that finds the target reached is one of them.
    used = [row["iterations"] for part in found for row in part.rows]
    assert used == [min(abs(n) + 1, budget) for n in wanted]
    np.testing.assert_array_equal(found[1].inputs, parts[1].inputs)


def test_neighbours_do_not_matter(judge):
    targets = [45.0, "30.0..35.0", "max", 38.0]
    whole = list(attacked([batch(LEVELS[:4], targets)], judge, 1.0, 50))
    (alone,) = attacked([batch(LEVELS[1:2], targets[1:2])], judge, 1.0, 50)
    np.testing.assert_array_equal(alone.images[0], whole[0].images[1])
    assert abs(judge(whole[0].images[:1])[0] - 45) < 1
    assert 29 < judge(whole[0].images[1:2])[0] < 36
    np.testing.assert_array_equal(np.round(whole[0].images[2] * 255), LEVELS[2])


def test_pixels_move_within_a_mask_only(judge):
    allowed = np.zeros((1, 4, 4), bool)
    allowed[0, :2] = True
    one = batch(LEVELS[:1], [float(judge(batch(LEVELS[:1], [0]).inputs)[0]) + 2], answer=2)
    (found,) = attacked([dataclasses.replace(one, allowed=allowed)], judge, 0.5, 50)
    moved = np.abs(np.round(found.images * 255) - LEVELS[:1])
    assert moved[:, 2:].max() == 0 and moved[:, :2].mean() > 5
    assert judge(found.images)[0] == pytest.approx(one.targets[0], abs=0.5)


def test_further_answers_start_elsewhere(judge):
    y = float(judge(batch(LEVELS[:1], [0]).inputs)[0])
    rows = [{"target": y, "answer": answer} for answer in (1, 2, 2)]
    three = dataclasses.replace(batch(LEVELS[[0, 0, 0]], []), rows=rows)
    (found,) = attacked([three], judge, 1.0, 50)
    first, second, again = found.images
    np.testing.assert_array_equal(again, second)
    assert 0 < np.abs(second - first).max() <= LARGEST_STEP + 1 / 255
