"""Metrics of faces on hand-made features."""

import numpy as np
import pytest

from eval.metrics.batch import Batch
from eval.metrics.faces import attributes, correlation_difference, identity, identity_dlib


def batch(x, y):
    return Batch([], np.asarray(x, np.float32), np.asarray(y, np.float32), None)


def test_same_person_above_half():
    found = identity(lambda x: x)(batch([[1, 0], [1, 0]], [[1, 1.7], [2, 2 * 1.8]]), None)
    cosine = [1 / np.hypot(1, 1.7), 1 / np.hypot(1, 1.8)]
    assert found["fs"] == pytest.approx(cosine, rel=1e-6)
    assert list(found["fva"]) == [1, 0]


def test_one_person_to_dlib_below_six_tenths():
    found = identity_dlib(lambda x: x)(batch([[0, 0], [1, 1]], [[0.3, 0.4], [1.4, 0.5]]), None)
    assert found["identity_distance_dlib"] == pytest.approx([0.5, np.hypot(0.4, 0.5)], rel=1e-6)
    assert list(found["same_person_dlib"]) == [1, 0]


def test_attributes_that_flip():
    parts = batch([[0.2, 0.6, 0.9], [0.5, 0.5, 0.5]], [[0.6, 0.4, 0.8], [0.51, 0.5, 0.4]])
    found = attributes(lambda x: x, lambda x: x * 0)(parts, None)
    assert list(found["mnac"]) == [2, 1] and list(found["mnac_originals"]) == [0, 0]


def test_correlation_difference_compares_changes_with_the_data():
    rng = np.random.default_rng(0)
    y, change = rng.normal(size=200), rng.normal(size=200)
    a = np.stack([y, -y, np.ones(200)], 1)
    follows = np.stack([a[:, 0] + change, a[:, 1] - change, np.ones(200)], 1)
    assert correlation_difference(y, y + change, a, follows) == pytest.approx(0, abs=1e-9)
    against = np.stack([a[:, 0] - change, a[:, 1] - change, np.ones(200)], 1)
    assert correlation_difference(y, y + change, a, against) == pytest.approx(2)
