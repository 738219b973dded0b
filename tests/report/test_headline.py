"""The sentence at the top of the report, its failures and its notes."""

import pytest

from diffcf_jax.report.headline import answer, failures, notes, worst
from diffcf_jax.results.statistics import bootstrap_mean
from diffcf_jax.target import Range


def rows(*targets, success=True, y=0.5):
    return [
        {
            "name": f"{i}.png", "target": target, "success": success, "y_initial": 0.1,
            "y_final": y, "reason": None if success else "stuck",
        }
        for i, target in enumerate(targets)
    ]  # fmt: skip


def rate(*values):
    return bootstrap_mean(values)


def test_the_answer_names_target_threshold_and_unit():
    some = rows(60.0, 60.0, 60.0, 60.0)
    text = answer(some, {"mean": 0.75, "low": 0.25, "high": 1.0, "n": 4}, {}, 2.0, "years")
    assert text == "75% of 4 images reach 60 years within 2 (95% interval 25% to 100%)."
    text = answer(rows(0.2, "0.4..0.5"), {"mean": 0.5, "low": 0.5, "high": 0.5, "n": 2}, {}, 0.05)
    assert text == "50% of 2 images reach their target within 0.05."
    assert answer(rows("40..50"), rate(True), {}, 2.0, "years").startswith(
        "100% of 1 image reaches 40..50 years"
    )
    assert "to no target that could be reached" in answer(rows("max"), rate(None), {}, 1.0)
    assert answer([], rate(), {}, 1.0) == "Nothing was explained."


def test_oracles_follow_the_answer():
    oracles = {"oracle": {"mean": 0.5, "low": 0.25, "high": 0.75, "n": 4}, "second": rate(None)}
    text = answer(rows(1.0), rate(True), oracles, 0.1)
    assert text.endswith("; the oracle agrees in 50% (95% interval 25% to 75%).")


@pytest.mark.parametrize(("value", "interval"), [(True, "85.8% to 100%"), (False, "0% to 14.2%")])
def test_images_that_agree_have_an_exact_interval(value, interval):
    text = answer(rows(*[0.5] * 24), rate(*[value] * 24), {}, 0.05)
    assert text.startswith("100% of 24" if value else "None of 24") and interval in text


def test_failures_come_with_their_reasons():
    some = rows(0.5, 0.6, success=False) + rows("max", success=False)
    assert failures(some, {"stuck.": 2}, 1) == (
        "2 do not: 2 × stuck. 1 input could not be explained."
    )
    assert failures(rows(0.5), {}, 0) == ""
    stalled = {f"stalled at {y} years after {n} iterations": 1 for y, n in ((24, 9), (-7.5, 66))}
    assert failures(some, {"flat": 1, "x2 at 1e-3": 3, **stalled}, 0) == (
        "2 do not: 3 × x2 at 1e-3; 2 × stalled at -7.5 to 24 years after 9 to 66 iterations; "
        "1 × flat. Stalled: more steps brought the prediction no closer."
    )
    often = rows(20.0, 80.0, 80.0, success=False) + rows(20.0, 80.0)
    assert failures(often, {"flat": 3}, 0, "years") == (
        "3 do not: 3 × flat. Most often towards 80 years: 2 of 3."
    )
    assert failures(rows(0.5, 0.5, success=False), {"flat": 2}, 0) == "2 do not: 2 × flat."
    title, found = worst(some, {}, 0.05)
    assert title == "The worst failures" and [why for _, why in found] == ["stuck", "stuck"]


def test_without_failures_the_oracle_says_where_to_look():
    some = rows(0.5, 0.6, 0.7)
    title, found = worst(some, {id(some[0]): 0.1, id(some[1]): 0.3, id(some[2]): 0.01}, 0.05)
    assert "oracle" in title and [row["name"] for row, _ in found] == ["1.png", "0.png"]
    assert worst(some, {}, 0.05)[1] == []


def test_notes():
    assert notes(rows(0.5, 0.6), []) == []
    assert notes(rows(0.5, 0.6, y=0.1), [])[0].startswith("All predictions are equal (0.1)")
    assert notes(rows(0.5, 0.6, y=None), []) == [
        "2 of 2 predictions are not finite: check the regressor."
    ]
    (beyond,) = notes(rows(0.5, 0.6), [], Range(0.1, 0.55))
    assert beyond.startswith("0.6: beyond the training labels, 0.1..0.55.")
    assert notes(rows(0.5, 0.6), [], Range(0.5, 0.6)) == []  # as float32 has them
    assert notes(rows(0.5), [])[0].startswith("One image was explained")
    assert notes(rows(0.5, 0.6), list("abcde")) == [
        *"abc", "2 more files cannot be shown for the like reasons.",
    ]  # fmt: skip
