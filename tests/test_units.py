import types

import numpy as np
import pytest

from diffcf_jax.errors import UserError
from diffcf_jax.target import Range
from diffcf_jax.units import Unit, label_range, unit_of

YEARS = {"unit": "years", "mean": 0.0, "scale": 100.0}


def test_values_go_to_the_network_and_back():
    unit = Unit("years", mean=30.0, scale=20.0)
    assert unit.normalise(80.0) == 2.5 and unit.denormalise(2.5) == 80.0
    # The paper's targets for CelebA-HQ, 0.8 and 0.1 of a century
    assert Unit(**{"name": "years", "scale": 100.0}).normalise(np.array([80.0, 10.0])) == (
        pytest.approx([0.8, 0.1])
    )


def test_results_are_in_the_users_unit():
    class Result(types.SimpleNamespace):
        def replace(self, **changes):
            return Result(**{**vars(self), **changes})

    curve = np.array([0.2, 0.3, np.nan])
    found = Result(y_initial=0.2, y_reconstruction=0.25, y_final=0.31, curve=curve, image="x'")
    assert Unit().denormalise_result(found) is found
    years = Unit("years", 0.0, 100.0).denormalise_result(found)
    values = (years.y_initial, years.y_reconstruction, years.y_final)
    assert values == pytest.approx((20, 25, 31)) and years.image == "x'"
    np.testing.assert_allclose(years.curve, [20, 30, np.nan])


@pytest.mark.parametrize(
    ("stored", "config", "unit"),
    [
        ({}, {}, Unit(None, 0.0, 1.0)),
        (YEARS, {}, Unit("years", 0.0, 100.0)),
        ({"unit": None, "mean": 0.0, "scale": 1.0}, YEARS, Unit("years", 0.0, 100.0)),
        (YEARS, {**YEARS, "mean": None}, Unit("years", 0.0, 100.0)),
        ({}, {"unit": ""}, Unit(None, 0.0, 1.0)),
    ],
)
def test_the_checkpoint_or_else_the_config_says_the_unit(stored, config, unit):
    assert unit_of(stored, {"checkpoint": "a", **config}) == unit


@pytest.mark.parametrize(
    ("stored", "config", "message"),
    [
        ({**YEARS, "mean": 37.0, "scale": 18.0}, YEARS, "mean=37.0, scale=18.0"),
        (YEARS, {"unit": "months"}, "config says unit=months"),
        ({}, {"scale": 0.0}, "scale=0"),
        ({}, {"mean": float("nan")}, "mean=nan"),
    ],
)
def test_contradictions_and_nonsense_are_refused(stored, config, message):
    with pytest.raises(UserError, match=message):
        unit_of(stored, config)


def test_range_of_the_training_labels():
    assert label_range({}, {}) is label_range({}, {"labels": ""}) is None
    assert label_range({"labels": [1.0, 2.0]}, {}) == Range(1.0, 2.0)
    assert label_range({"labels": [1.0, 2.0]}, {"labels": "18..75"}) == Range(18.0, 75.0)
    for wrong in ("18", "old", "max"):
        with pytest.raises(UserError, match=f"config.regressor.labels={wrong} must be a range"):
            label_range({}, {"labels": wrong})
