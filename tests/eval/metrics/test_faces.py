"""Metrics of faces on hand-made features, and on tiny networks of the two kinds."""

import numpy as np
import pytest

from diffcf_jax.errors import UserError
from eval.metrics.batch import Batch
from eval.metrics.faces import attributes, correlation_difference, identity
from eval.metrics.weights import load_features
from tests import tiny

CAFFE = {"kind": "caffe_resnet", "model": {"width": 4, "blocks": [1]}, "image_size": 224}


def batch(x, y):
    return Batch([], np.asarray(x, np.float32), np.asarray(y, np.float32), None)


def test_same_person_above_half():
    found = identity(lambda x: x)(batch([[1, 0], [1, 0]], [[1, 1.7], [2, 2 * 1.8]]), None)
    cosine = [1 / np.hypot(1, 1.7), 1 / np.hypot(1, 1.8)]
    assert found["fs"] == pytest.approx(cosine, rel=1e-6)
    assert list(found["fva"]) == [1, 0]


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


def test_networks_of_a_folder(tmp_path):
    assert load_features(None) == {}
    tiny.save(tmp_path / "identity", CAFFE)
    tiny.save(tmp_path / "attributes", {**CAFFE, "model": {**CAFFE["model"], "outputs": 40}})
    found = load_features(tmp_path)
    image = np.full((1, 16, 16, 3), 0.7, np.float32)
    assert found["identity"](image).shape == (1, 16)
    scores, published = found["attributes"](image), found["attributes_originals"](image)
    assert scores.shape == (1, 40) and scores.min() > 0 and scores.max() < 1
    # 4 x - 3 of x is 2 z - 1 of z = 2 x - 1
    assert published == pytest.approx(found["attributes"](2 * image - 1), abs=1e-6)


def test_user_errors(tmp_path):
    with pytest.raises(UserError, match="give --weights the one with the networks"):
        load_features(tmp_path / "nowhere")
    tiny.save(tmp_path / "attributes", CAFFE)
    with pytest.raises(UserError, match="attributes holds another network: .* --kind mnac"):
        load_features(tmp_path)
