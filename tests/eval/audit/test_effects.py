"""Effects in a linear autoencoder, where they are known."""

import dataclasses
import math

import numpy as np
import pytest

from diffcf_jax.results.statistics import holm
from eval.audit.attributes import Attribute
from eval.audit.audit import audit_csv, conclude, find_directions, limits
from eval.audit.directions import Direction, from_attributes, from_gradients
from eval.audit.effects import measure, reconstruct, sham, step, summarise, whole_effect
from eval.audit.reverse import kept, rchange, whole_changes
from eval.audit.subgroups import contrasts, counterfactual_regression, regression
from tests.eval.audit.linear import CODES, direction, subject

N = 24
RANDOM = np.random.default_rng(0)
Z = RANDOM.normal(0.5, 0.2, (N, CODES))
FEATURE, SPURIOUS = np.eye(CODES)[[0, 1]]


def audited(weights, changes=None, **oracles):
    found = subject(Z, weights, np.zeros((N, CODES)) if changes is None else changes, **oracles)
    return found, reconstruct(found)


def row_of(direction, weights, probes=None, **oracles):
    found, base = audited(weights, **oracles)
    row = {"name": direction.name, "source": direction.source}
    row |= summarise(measure(found, base, direction, 1.0, 2), found, probes or {})
    return row | {"whole": None, "rchange": {}}


def test_the_effect_of_a_step_is_that_of_a_deviation_of_the_codes():
    u = direction(FEATURE + SPURIOUS)
    weights = 3 * FEATURE
    found, base = audited(weights, oracle=0.5 * weights)
    measured = measure(found, base, u, 1.0, 2)
    along = found.codes @ (FEATURE + SPURIOUS) / np.sqrt(2)
    expected = 3 * along.std() / np.sqrt(2) * found.space.std[0]
    assert measured.effect["regressor"] == pytest.approx(expected)
    assert measured.effect["oracle"] == pytest.approx(expected / 2)
    assert (measured.sham_size > 0).all()
    assert measured.distance == pytest.approx(np.abs(step(u, found, 1) @ np.diag(found.space.std))
                                              .mean(1))  # fmt: skip
    assert measured.moved == pytest.approx(step(u, found, 1))
    assert measure(found, base, u, 2.0, 1).effect["regressor"] == pytest.approx(2 * expected)


def test_what_any_edit_of_that_size_does_is_not_in_the_effect():
    u = direction(FEATURE)
    found, base = audited(FEATURE)
    linear = found.readers["regressor"]
    bent = {"regressor": lambda images: linear(images) + (images**2).sum((1, 2, 3))}
    bent = dataclasses.replace(found, readers=bent)
    effect = measure(bent, base, u, 1.0, 1).effect["regressor"]
    # (x + d)^2 - (x - d)^2 = 4 x d: what d^2 adds either way cancels.
    d = found.space.std[0] * (found.codes @ FEATURE).std()
    assert effect == pytest.approx(d + 2 * found.images.reshape(N, -1)[:, 0] * d, rel=1e-5)


def test_the_prediction_rises_along_its_gradient():
    weights = FEATURE - 3 * SPURIOUS
    found, base = audited(weights)
    assert found.gradients() == pytest.approx(np.tile(weights * found.space.std, (N, 1)))
    (mean,) = from_gradients(found.gradients(), found.codes, found.half)
    u = found.codes.T @ found.codes @ (weights * found.space.std)
    u /= np.linalg.norm(u)
    expected = (found.codes @ u).std() * (u @ (weights * found.space.std))
    assert measure(found, base, mean, 1.0, 1).effect["regressor"] == pytest.approx(expected)
    assert expected > 0.5 * (Z @ weights).std()


def test_an_image_follows_the_direction_that_its_half_did_not_find():
    weights = FEATURE + 10 * SPURIOUS
    found, base = audited(weights)
    crossed = Direction("u", "gradient", np.stack([FEATURE, SPURIOUS]), {})
    effect = measure(found, base, crossed, 1.0, 1).effect["regressor"]
    assert effect[found.half == 0] == pytest.approx(10 * found.space.std[1])  # of half 1
    assert effect[found.half == 1] == pytest.approx(found.space.std[0])


def test_random_edits_depend_on_names_and_have_the_size_of_the_edit():
    change = np.arange(1.0, 4)[:, None] * np.ones((3, 300))
    names = ["a", "b", "c"]
    drawn = sham(change, names, "u", 0, seed=0)
    assert np.linalg.norm(drawn, axis=1) == pytest.approx(np.linalg.norm(change, axis=1))
    again = sham(change[::-1], names[::-1], "u", 0, seed=0)[::-1]
    assert (again == drawn).all()
    for other in (("v", 0, 0), ("u", 1, 0), ("u", 0, 1)):
        assert np.abs(sham(change, names, *other) - drawn).max() > 0.1
    many = np.concatenate([sham(change, names, "u", k, seed=0) for k in range(50)])
    assert abs(many.mean()) < 0.05  # centred on 0


def test_what_no_oracle_follows_is_flagged_first():
    u, v, w = (direction(np.eye(CODES)[k], name) for k, name in enumerate(("true", "extra", "no")))
    weights, honest = 2 * FEATURE + SPURIOUS, 2 * FEATURE
    rows = [row_of(one, weights, oracle=honest) for one in (u, v, w)]
    first, second, third = conclude(rows, 0.05, "years")
    assert [row["name"] for row in (first, second, third)] == ["extra", "true", "no"]
    assert [row["verdict"] for row in (first, second, third)] == ["flagged", "followed", "still"]
    assert "Oracle does not follow: a step" in first["sentence"] and "years" in first["sentence"]
    assert "Oracle follows with 100% of the step." in second["sentence"]
    assert "no more than the smallest effect of interest" in third["sentence"]
    for p, adjusted in zip(holm([row["effect"]["p"] for row in rows]), rows, strict=True):
        (found,) = (row for row in (first, second, third) if row["name"] == adjusted["name"])
        assert found["effect"]["p_holm"] == p >= found["effect"]["p"]
    assert first["oracles"]["oracle"]["gap"]["mean"] == pytest.approx(first["effect"]["mean"])
    # The smallest effect of interest decides, and two oracles may differ.
    assert conclude(rows, 10.0, None)[0]["verdict"] == "still"
    both = conclude([row_of(v, weights, one=honest, other=weights)], 0.05, None)
    assert both[0]["verdict"] == "disputed"
    alone = conclude([row_of(v, weights)], 0.05, None)
    assert alone[0]["verdict"] == "unjudged" and "is no oracle" in alone[0]["sentence"]
    # A step may paint a part of an attribute only: where the whole is known, it is what counts.
    effect = rows[1]["effect"]["mean"]
    for factor, verdict in ((3, "flagged"), (0.3, "still")):
        whole = {"mean": factor * effect, "low": None, "high": None, "per": "from 0 to 1"}
        (found,) = conclude(
            [rows[1] | {"whole": whole}], (1.5 if factor > 1 else 0.5) * effect, None
        )
        assert found["verdict"] == verdict and "rom 0 to 1, extra changes it" in found["sentence"]
    assert audit_csv([first, second, third]).splitlines()[1].startswith("extra,gradient,flagged,")


def test_the_attribute_that_moves_is_told_from_those_that_move_along():
    a, b = 0.5 + 0.2 * RANDOM.normal(size=(2, N))
    table = [Attribute("a", a), Attribute("b", b)]
    s = np.zeros((N, CODES))
    s[:, :2] = np.stack([a, b], axis=1)
    found = subject(0.5 + s, FEATURE, np.zeros((N, CODES)))
    base = reconstruct(found)
    (first, _), probes, _ = from_attributes(found.codes, found.half, table)
    row = {"name": "a", "source": "attribute", "whole": None}
    pure = row | summarise(measured := measure(found, base, first, 1.0, 1), found, probes)
    assert pure["moved"]["a"]["mean"] > 0.5
    # The prediction is a itself, so that a standard deviation of a adds that of a.
    again = found.encode(base.images)
    whole = whole_effect(measured, again, found, probes["a"], table[0])
    assert whole["mean"] == pytest.approx(a.std(), rel=1e-3)
    # However little a probe reads, the attribute adds the same.
    timid = tuple(dataclasses.replace(probe, weights=0.3 * probe.weights) for probe in probes["a"])
    same = whole_effect(measured, again, found, timid, table[0])
    assert same["mean"] == pytest.approx(whole["mean"])
    mixed = Direction("a", "attribute", direction(FEATURE + SPURIOUS).vectors, {})
    both = row | summarise(measure(found, base, mixed, 1.0, 1), found, probes)
    assert conclude([pure | {"rchange": {}}], 0.0, None)[0]["moved_too"] == []
    assert conclude([both | {"rchange": {}}], 0.0, None)[0]["moved_too"] == ["b"]


def test_a_direction_explains_all_of_itself_and_nothing_of_others():
    image_of = np.repeat(np.arange(N), 2)
    sizes = RANDOM.uniform(1, 2, (2 * N, 1)) * RANDOM.choice((-1, 1), (2 * N, 1))
    found = subject(Z, 2 * FEATURE + SPURIOUS, sizes * FEATURE, image_of)
    base = reconstruct(found)
    whole = whole_changes(found, base)
    assert kept(found, whole)["mean"] == pytest.approx(1)
    own = rchange(found, base, whole, direction(FEATURE))
    assert own["explained"]["mean"] == pytest.approx(1)
    assert own["remaining"]["mean"] == pytest.approx(0, abs=1e-9)
    none = rchange(found, base, whole, direction(SPURIOUS))
    assert none["explained"]["mean"] == pytest.approx(0, abs=1e-9)
    assert none["remaining"]["mean"] == pytest.approx(1)
    assert own["explained"]["n"] == 2 * N
    slanted = direction(FEATURE + np.eye(CODES)[5])  # 45 degrees away
    weighted = subject(Z, 2 * FEATURE, sizes * FEATURE, image_of)
    base = reconstruct(weighted)
    half = rchange(weighted, base, whole_changes(weighted, base), slanted)
    assert half["explained"]["mean"] == pytest.approx(0.5)


def test_the_interaction_is_the_difference_of_two_groups():
    man = Attribute("man", np.array([0.0, 1] * 10))
    height = Attribute("height", np.arange(20.0))
    effect = np.where(man.upper, 5.0, 1.0) + 0.1 * np.sin(np.arange(20))
    by_sex, by_height = contrasts(effect, [man, height])
    assert by_sex["contrast"]["mean"] == pytest.approx(4, abs=0.1)
    assert 3.8 < by_sex["contrast"]["low"] < by_sex["contrast"]["high"] < 4.2
    assert by_sex["with"]["n"] == 10 and by_sex["groups"] == ["1", "0"]
    assert by_height["contrast"]["low"] < 0 < by_height["contrast"]["high"]
    (lonely,) = contrasts(effect[:3], [Attribute("man", np.array([0.0, 1, 0]))])
    assert lonely["contrast"]["mean"] is None
    assert lonely["with"]["mean"] == pytest.approx(effect[1])


def test_changes_of_the_prediction_are_regressed_on_those_of_attributes():
    image = np.repeat(np.arange(30), 2)
    a, b = RANDOM.normal(size=(2, 60))
    found = regression(3 * a - b + 1 + 0.01 * RANDOM.normal(size=60), {"a": a, "b": b}, image, 0)
    assert found["slopes"]["a"]["mean"] == pytest.approx(3, abs=0.01)
    assert found["slopes"]["b"]["low"] < -1 + 0.01 and found["slopes"]["b"]["high"] > -1 - 0.01
    assert found["n"] == 60 and found["r2"] > 0.999
    assert regression(a, {"a": a, "b": 2 * a}, image, 0) is None  # always together
    assert regression(a[:4], {"a": a[:4], "b": b[:4]}, image[:4], 0) is None  # 2 images
    attribute = Attribute("a", Z[:, 0])
    changes = RANDOM.normal(size=(N, 1)) * FEATURE
    subject_ = subject(Z, 2 * FEATURE, changes)
    _, probes, _ = from_attributes(subject_.codes, subject_.half, [attribute])
    assert counterfactual_regression(subject_, probes)["r2"] > 0.9


def test_four_images_are_enough_to_look_at():
    changes = RANDOM.normal(size=(4, CODES))
    found = subject(Z[:4], FEATURE, changes)
    base = reconstruct(found)
    directions, probes, unsaid = find_directions(found, [], 9)
    assert probes == {} and unsaid == []
    assert {one.source for one in directions} == {"counterfactuals", "gradient"}
    assert len([one for one in directions if one.source == "counterfactuals"]) == 2
    rows = [
        {"name": one.name, "source": one.source, "whole": None, "rchange": {}, "subgroups": []}
        | summarise(measure(found, base, one, 1.0, 1), found, probes)
        for one in directions
    ]
    rows = conclude(rows, 0.0, None)
    assert {row["verdict"] for row in rows} == {"still"}
    few, no_oracle, no_attributes = limits(rows, found, [])
    assert few.startswith("With 4 images no direction can be significant")
    assert few.endswith(f"audit at least {2 + math.floor(math.log2(len(rows) / 0.05))} images.")
