"""Means, intervals and paired comparisons against known answers."""

import numpy as np
import pytest
from scipy import stats

from diffcf_jax.results.statistics import (
    bootstrap_contrast,
    bootstrap_mean,
    bootstrap_ratio,
    holm,
    paired_difference,
)


def test_bootstrap_agrees_with_the_normal_interval():
    x = np.random.default_rng(1).normal(3.0, 2.0, 400)
    interval = bootstrap_mean(x)
    error = 1.96 * x.std() / 20
    assert interval["mean"] == pytest.approx(x.mean())
    assert interval["low"] == pytest.approx(x.mean() - error, abs=0.02)
    assert interval["high"] == pytest.approx(x.mean() + error, abs=0.02)
    assert interval == bootstrap_mean(x) and interval["n"] == 400


def test_bootstrap_leaves_out_what_is_not_finite():
    interval = bootstrap_mean([1.0, None, np.nan, np.inf, 3.0, -np.inf])
    assert (interval["mean"], interval["n"]) == (2.0, 2)
    assert (interval["low"], interval["high"]) == (1.0, 3.0)
    assert bootstrap_mean([]) == {"mean": None, "low": None, "high": None, "n": 0}
    assert bootstrap_mean([True]) == {"mean": 1.0, "low": 1.0, "high": 1.0, "n": 1}


def test_bootstrap_of_equal_values_is_that_value_without_a_warning():
    for n in (1, 2, 10):
        for value in (0.1, 0.0, 1e-30, 1e30):
            interval = bootstrap_mean(n * [value])
            assert interval["low"] == interval["mean"] == interval["high"]
            assert interval["mean"] == pytest.approx(value) and interval["n"] == n


def test_bootstrap_draws_whole_images():
    means = np.random.default_rng(2).normal(0.0, 1.0, 100)
    alone = bootstrap_mean(means)
    repeated = bootstrap_mean(np.repeat(means, 5), np.repeat(np.arange(100), 5))
    assert repeated["n"] == 500
    for key in ("mean", "low", "high"):
        assert repeated[key] == pytest.approx(alone[key], rel=1e-9, abs=1e-12)


def test_bootstrap_follows_a_skewed_distribution():
    # The interval that covers 95% of the means of 60 draws reaches further to the long tail.
    x = np.random.default_rng(3).exponential(1.0, 60)
    interval = bootstrap_mean(x)
    assert interval["high"] - x.mean() > 1.1 * (x.mean() - interval["low"])
    expected = stats.bootstrap((x,), np.mean, n_resamples=20000, rng=np.random.default_rng(9))
    assert interval["low"] == pytest.approx(expected.confidence_interval.low, rel=0.02)
    assert interval["high"] == pytest.approx(expected.confidence_interval.high, rel=0.02)


def test_paired_difference_counts_images():
    keys = [(image, target) for image in range(12) for target in (20, 60)]
    image_of = {key: key[0] for key in keys}
    a = {key: float(key[0]) for key in keys}
    b = {(i, target): i + (i + 1) / 10 for i, target in keys}
    found = paired_difference(a, b | {("only here", 20): 1e9}, image_of | {("only here", 20): 99})
    assert found["mean"] == pytest.approx(0.65) and found["n"] == 24
    assert found["p"] == pytest.approx(2 / 2**12)  # all 12 images rise: one of 2^12 signs, twice
    assert found["low"] < 0.65 < found["high"]
    assert paired_difference(a, a, image_of)["p"] == 1.0
    none = paired_difference(a, {}, image_of)
    assert (none["p"], none["mean"], none["n"]) == (None, None, 0)


def test_holm_adjusts_for_the_number_of_tests():
    assert holm([0.01, None, 0.04, 0.03]) == pytest.approx([0.03, None, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_a_ratio_of_means_counts_images():
    b = np.array([1.0, 2, 3, 4, 5, 6])
    noise = np.array([0.1, -0.1, 0.2, -0.2, 0.1, -0.1])
    images = list("aabbcc")
    found = bootstrap_ratio(2 * b + noise, b, images)
    assert found["mean"] == pytest.approx(2) and found["n"] == 6
    assert 1.9 < found["low"] < 2 < found["high"] < 2.1
    exact = bootstrap_ratio(2 * b, b, images)
    assert exact["low"] == exact["mean"] == exact["high"] == pytest.approx(2)
    assert bootstrap_ratio([1.0, np.nan], [2.0, 1], ["a", "b"])["mean"] == 0.5
    assert bootstrap_ratio([1.0, 1], [1.0, -1], ["a", "b"])["mean"] is None
    # Ones below are a mean.
    ones = bootstrap_ratio(b, np.ones(6), images)
    assert ones == pytest.approx(bootstrap_mean(b, images))


def test_a_contrast_is_that_of_two_independent_groups():
    random = np.random.default_rng(0)
    a, b = random.normal(3, 1, 200), random.normal(1, 2, 300)
    found = bootstrap_contrast(a, b)
    half = 1.96 * np.sqrt(a.var(ddof=1) / 200 + b.var(ddof=1) / 300)
    assert found["mean"] == pytest.approx(a.mean() - b.mean()) and found["n"] == 500
    assert found["low"] == pytest.approx(found["mean"] - half, abs=0.05)
    assert found["high"] == pytest.approx(found["mean"] + half, abs=0.05)
    assert bootstrap_contrast([1.0, 1], [0.0, 0]) == {"mean": 1, "low": 1, "high": 1, "n": 4}
    assert bootstrap_contrast([1.0], [0.0, 0])["mean"] is None
