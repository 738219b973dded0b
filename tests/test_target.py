"""Targets: how they are read, written and turned into what a search is asked for."""

import numpy as np
import pytest

from diffcf_jax import Range, UserError
from diffcf_jax.target import bounds, ends, inside, nearest, parse_target, plain


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("0.2", 0.2),
        ("-3", -3.0),
        ("40..50", Range(40, 50)),
        ("-1.5..1e1", Range(-1.5, 10)),
        (" .1 .. .2 ", Range(0.1, 0.2)),
        ("max", "max"),
        ("min", "min"),
    ],
)
def test_targets_are_read(text, target):
    assert parse_target(text) == target
    # What is written down is read back, as the user wrote it.
    assert parse_target(str(plain(target))) == target
    assert plain(plain(target)) == plain(target)


@pytest.mark.parametrize("text", ["", "40...", "..", "40..", "..50", "a..b", "1..2..3", "maximum"])
def test_other_texts_are_no_targets(text):
    with pytest.raises(ValueError, match="is no target"):
        parse_target(text)


def test_a_range_says_what_is_wrong_with_it():
    with pytest.raises(UserError, match=r"range 50\.\.40 .* write the lower end first"):
        Range(50, 40)
    with pytest.raises(UserError, match="no room"):
        Range(1, 1 + 1e-9)  # equal in float32
    for low, high in ((0, np.inf), (np.nan, 1), (-1e39, 0)):
        with pytest.raises(UserError, match="not finite"):
            Range(low, high)


def test_the_text_of_a_range_is_that_of_float32():
    assert str(Range(40, 50.0)) == "40..50"
    assert str(Range(np.float32(0.1), 0.25)) == "0.1..0.25"


def test_what_counts_and_what_is_aimed_at():
    accept, aim = bounds(Range(40, 50), 0.0)
    np.testing.assert_array_equal(accept, [40, 50])
    np.testing.assert_array_equal(aim, [41, 49])
    for part in bounds(0.3, 0.0):
        np.testing.assert_array_equal(part, np.float32([0.3, 0.3]))
    for target, sign in (("min", -1), ("max", 1)):
        accept, aim = bounds(target, 0.5)
        assert (accept == sign * np.inf).all() and (sign * aim == 150 + sign * 0.5).all()


def test_nearest():
    assert [nearest(y, Range(1, 2)) for y in (0, 1.5, 3)] == [1, 1.5, 2]
    assert nearest(5.0, "1..2") == 2 and nearest(5.0, 0.3) == 0.3 and nearest(5.0, "max") is None
    assert ends("1..2") == (1, 2) and ends(0.3) == (0.3, 0.3) and ends("min") is None


def test_targets_inside_a_range():
    support = Range(0.1, 75.0)
    assert [inside(t, support) for t in (0.1, "20..75", 75.0)] == [1, 1, 1]
    assert [inside(t, support) for t in (0.0, "20..76", 80)] == [0, 0, 0]
    assert np.isnan(inside("max", support))
