"""Directions on codes that were made from known ones."""

import numpy as np
import pytest

from eval.audit.attributes import Attribute
from eval.audit.directions import (
    Space,
    from_attributes,
    from_counterfactuals,
    from_gradients,
    split,
)
from eval.audit.probe import area_under_curve, fit_probe, r2

RANDOM = np.random.default_rng(0)
D = 12


def basis(*indices):
    return np.eye(D)[list(indices)]


def cosines(direction, vector):
    return direction.vectors @ vector / np.linalg.norm(vector)


def test_halves_depend_on_the_names_alone():
    names = [f"face {i}.png" for i in range(21)]
    half = split(names)
    order = RANDOM.permutation(21)
    assert list(split([names[i] for i in order])) == list(half[order])
    assert half.sum() == 10


def test_codes_are_standardised_and_dead_channels_stay():
    z = RANDOM.normal(3, 1, (50, D)) * np.arange(D)
    space = Space.of(z)
    s = space.standardise(z)
    assert s[:, 1:].std(0) == pytest.approx(1) and not s[:, 0].any()
    assert space.mean + space.change(s) == pytest.approx(z)
    assert not space.change(np.ones(D))[0]


def test_attributes_that_come_together_are_told_apart():
    n = 200
    half = split([str(i) for i in range(n)])
    glasses = RANDOM.integers(0, 2, n).astype(float)
    age = 40 + 15 * glasses + RANDOM.normal(0, 10, n)  # a correlation of 0.6
    u, v = basis(0, 1)
    s = np.outer(glasses, 2 * u) + np.outer(age / 15, v) + RANDOM.normal(0, 0.3, (n, D))
    table = [Attribute("glasses", glasses), Attribute("age", age)]
    (first, second), probes, unsaid = from_attributes(s, half, table)
    assert unsaid == [] and list(probes) == ["glasses", "age"]
    assert (cosines(first, u) > 0.99).all() and (np.abs(cosines(first, v)) < 0.1).all()
    assert (cosines(second, v) > 0.98).all() and first.agreement > 0.98
    assert first.facts["auc"] > 0.99 and second.facts["r2"] > 0.8 and "auc" not in second.facts
    # One attribute alone is the difference of two means.
    (alone,), *_ = from_attributes(s, half, table[:1])
    mine = half == 1
    with_glasses = mine & (glasses == 1)
    difference = s[with_glasses].mean(0) - s[mine & (glasses == 0)].mean(0)
    assert cosines(alone, difference)[1] == pytest.approx(1)


def test_an_attribute_that_is_constant_in_a_half_is_left_out():
    half = np.array([0, 0, 1, 1])
    attribute = Attribute("hat", np.array([0.0, 0, 0, 1]))
    directions, probes, (text,) = from_attributes(RANDOM.normal(size=(4, D)), half, [attribute])
    assert directions == [] and probes == {} and text.startswith("hat has one value in all images")


def test_the_probe_is_ridge_regression_with_the_strength_that_leaving_one_out_chooses():
    s = RANDOM.normal(size=(9, 5))
    a = s @ RANDOM.normal(size=5) + RANDOM.normal(size=9)
    x = s - s.mean(0)
    scale = np.linalg.eigvalsh(x @ x.T).mean()

    def ridge(s, a, strength):
        x = s - s.mean(0)
        return np.linalg.solve(x.T @ x + strength * np.eye(5), x.T @ (a - a.mean()))

    def error(strength):
        # Leaving one out, with the centre of all: what the closed form leaves out.
        residuals = []
        for i in range(9):
            kept = np.arange(9) != i
            centred = np.column_stack([s - s.mean(0), np.ones(9)])[kept]
            penalty = np.diag([*(5 * [strength]), 0])
            w = np.linalg.solve(centred.T @ centred + penalty, centred.T @ a[kept])
            residuals.append(a[i] - np.append(s[i] - s.mean(0), 1) @ w)
        return np.square(residuals).sum()

    strengths = np.geomspace(1e-4, 1e2, 13) * scale
    best = min(strengths, key=error)
    probe = fit_probe(s, a)
    assert probe.weights == pytest.approx(ridge(s, a, best), rel=1e-6)
    assert probe(s.mean(0)) == pytest.approx(a.mean())


def test_how_well_a_probe_reads():
    a = np.array([0.0, 0, 1, 1])
    assert r2(a, a) == 1 and r2(a, np.full(4, 0.5)) == 0
    assert area_under_curve(a > 0, np.array([1.0, 3, 2, 4])) == 0.75
    assert area_under_curve(a > 0, np.zeros(4)) == 0.5


def test_clusters_of_changes_point_where_the_prediction_rises():
    half = np.array([0, 1] * 20)
    rises = RANDOM.integers(0, 2, 40) > 0
    which = np.arange(40) // 2 % 4 == 0  # a quarter goes another way
    u, v = basis(3, 7)
    towards = np.where(which[:, None], v, u) + RANDOM.normal(0, 0.05, (40, D))
    changes = np.where(rises, 1, -1)[:, None] * towards * RANDOM.uniform(1, 9, (40, 1))
    first, second = from_counterfactuals(changes, rises, half, 2, seed=0)
    assert (cosines(first, u) > 0.98).all() and (cosines(second, v) > 0.98).all()
    assert first.facts["share"] == 0.75 and first.name == "counterfactuals 1"


def test_no_cluster_is_empty():
    changes = np.repeat(basis(1), 6, axis=0)
    half = np.array([0, 1] * 3)
    (only,) = from_counterfactuals(changes, np.ones(6, bool), half, 4, seed=0)
    assert only.facts["share"] == 1 and only.agreement == pytest.approx(1)
    assert from_counterfactuals(changes[:1], np.ones(1, bool), half[:1], 4, seed=0) == []
    assert from_counterfactuals(0 * changes, np.ones(6, bool), half, 4, seed=0) == []


def test_the_gradient_is_followed_as_the_codes_vary():
    n = 400
    half = split([str(i) for i in range(n)])
    deviations = np.linspace(0.2, 2, D)
    s = RANDOM.normal(size=(n, D)) * deviations
    w, other = RANDOM.normal(size=(2, D))
    sign = RANDOM.choice((-1, 1), n)
    gradients = w + 2 * np.outer(sign, other)
    mean, first = from_gradients(gradients, s, half)
    assert (cosines(mean, deviations**2 * w) > 0.95).all()
    assert first.agreement > 0.9 and mean.facts["share"] + first.facts["share"] == pytest.approx(1)
    assert from_gradients(0 * gradients, s, half) == []
    (constant,) = from_gradients(np.tile(w, (n, 1)), s, half)
    assert constant.facts["share"] == pytest.approx(1)
