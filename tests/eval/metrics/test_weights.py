"""The networks of a folder, each on tiny ones of its kind, up to the metrics that they make."""

import json

import numpy as np
import pytest

from diffcf_jax.checkpoint.store import save_network
from diffcf_jax.errors import UserError
from eval.metrics.batch import Batch
from eval.metrics.distances import cmmd, frechet_distance
from eval.metrics.perceptual import lpips, s3
from eval.metrics.realism import set_metrics
from eval.metrics.weights import load_networks
from tests import seeded, tiny
from tests.regressors import onnx_files

CAFFE = {"kind": "caffe_resnet", "model": {"width": 4, "blocks": [1]}, "image_size": 224}
LPIPS = {"kind": "lpips", "model": {"backbone": "alex", "width": 4}, "image_size": 224}
DLIB = {
    "kind": "dlib_resnet",
    "model": {"width": 4, "blocks": [1], "outputs": 6},
    "image_size": 150,
}
SIMSIAM = {"kind": "simsiam", "model": {"width": 4, "blocks": [1]}, "image_size": 224}


def test_faces(tmp_path):
    assert "identity" not in load_networks(None)
    tiny.save(tmp_path / "identity", CAFFE)
    tiny.save(tmp_path / "attributes", {**CAFFE, "model": {**CAFFE["model"], "outputs": 40}})
    tiny.save(tmp_path / "identity_dlib", DLIB)
    found = load_networks(tmp_path)
    assert "identity" in found and "attributes" in found and found.own == ()
    image = np.full((1, 16, 16, 3), 0.7, np.float32)
    assert found.features["identity"](image).shape == (1, 16)
    assert found.features["identity_dlib"](image).shape == (1, 6)
    scores, published = (
        found.features[name](image) for name in ("attributes", "attributes_originals")
    )
    assert scores.shape == (1, 40) and scores.min() > 0 and scores.max() < 1
    # 4 x - 3 of x is 2 z - 1 of z = 2 x - 1
    again = found.features["attributes"](2 * image - 1)
    assert published == pytest.approx(again, abs=1e-6)


def test_lpips_and_s3(tmp_path):
    tiny.save(tmp_path / "lpips", LPIPS)
    tiny.save(tmp_path / "simsiam", SIMSIAM)
    found = load_networks(tmp_path)
    x, y = seeded.images(2, 9, 32, 32, 3) / np.float32(255)  # more than are computed at a time
    batch = Batch([], x, np.concatenate([x[:1], y[1:]]), None)
    distances = lpips("lpips", found.distances["lpips"])(batch, None)["lpips"]
    assert distances[0] == 0 and len(distances) == 9 and (distances[1:] != 0).all()
    small = lpips("lpips", found.distances["lpips"])(Batch([], x[:, :31], y[:, :31], None), None)
    assert np.isnan(small["lpips"]).all()
    similar = s3(found.features["simsiam"])(batch, None)["s3"]
    assert similar[0] == pytest.approx(1) and (np.abs(similar[1:]) < 0.9999).all()


def test_s3_equals_the_original(tmp_path):
    module, variables = seeded.converted("simsiam", "simsiam")
    description = {
        "kind": "simsiam", "image_size": 224,
        "model": {"width": module.width, "blocks": list(module.blocks)},
    }  # fmt: skip
    save_network(tmp_path / "simsiam", description, variables)
    x, y = seeded.images(2, 2, 64, 72, 3)
    batch = Batch([], x / np.float32(255), y // 4 / np.float32(255), None)
    found = s3(load_networks(tmp_path).features["simsiam"])(batch, None)["s3"]
    np.testing.assert_allclose(found, seeded.golden("simsiam")["similarity"], rtol=1e-4)


def test_names_on_inception_and_clip():
    rng = np.random.default_rng(0)
    real, made = rng.normal(size=(2, 12, 3))
    succeeded = np.arange(12) < 7
    assert set_metrics("identity", real, made, succeeded, full=False) == {}
    (only,) = set_metrics("inception", real, made, succeeded, full=False).items()
    assert only == ("fid", frechet_distance(real, made))
    found = set_metrics("inception", real, made, succeeded, full=True)
    names = {f"{name}_inception" for name in ("precision", "recall", "density", "coverage")}
    assert found.keys() == names | {"fid", "fid_success", "sfid", "kid"}
    assert found["fid_success"] == frechet_distance(real, made[:7])
    none = set_metrics("inception", real, made, np.zeros(12, bool), full=True)
    assert np.isnan(none["fid_success"])
    found = set_metrics("clip", 2 * real, made, succeeded, full=True)
    units = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (real, made)]
    assert found["cmmd"] == pytest.approx(cmmd(*units))
    assert found["fd_clip"] == frechet_distance(2 * real, made)


def pooling(path, **more):
    """Saves a network whose features are the means of red and, doubled, of green."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nodes = [
        onnx_files.node("GlobalAveragePool", "x", "p"), onnx_files.node("Flatten", "p", "f"),
        onnx_files.node("Gemm", "f,w", "y"),
    ]  # fmt: skip
    weights = np.array([[1, 0], [0, 2], [0, 0]], np.float32)
    onnx_files.save(path, nodes, {"w": weights}, output=("b", 2), **more)


def test_networks_of_the_users_own(tmp_path):
    (tmp_path / "notes").mkdir()
    pooling(tmp_path / "clip" / "model.onnx")
    config = {"size": 8, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.25, 0.5]}
    (tmp_path / "clip" / "preprocessor_config.json").write_text(json.dumps(config))
    found = load_networks(tmp_path)
    assert found.own == ("clip",)
    x = np.broadcast_to(np.float32((0.5, 0.75, 0)), (20, 16, 16, 3))
    np.testing.assert_allclose(found.features["clip"](x), 20 * [[0, 2]], atol=1e-6)
    pooling(tmp_path / "other" / "model.onnx", metadata={"diffcf.preprocess": "none size=8"})
    found = load_networks(tmp_path)
    np.testing.assert_allclose(found.features["other"](x), 20 * [[0.5, 1.5]], atol=1e-6)
    node = onnx_files.node("Relu", "x", "y")
    onnx_files.save(
        tmp_path / "other" / "model.onnx", [node], output=("b", 3, 8, 8),
        metadata={"diffcf.preprocess": "none size=8"},
    )  # fmt: skip
    with pytest.raises(UserError, match=r"model\.onnx returns numbers of shape \(3, 8, 8\)"):
        load_networks(tmp_path).features["other"](x)


def test_user_errors(tmp_path):
    with pytest.raises(UserError, match="give --weights the one with the networks"):
        load_networks(tmp_path / "nowhere")
    for name, description, hint in (
        ("attributes", CAFFE, "--kind mnac"),
        ("inception", CAFFE, "--kind inception"),
        ("identity_dlib", CAFFE, "--kind face-api-identity"),
        ("lpips_vgg", LPIPS, "--kind lpips of the classifier vgg"),
    ):
        tiny.save(tmp_path / name / name, description)
        with pytest.raises(UserError, match=f"{name} holds another network: .* {hint}"):
            load_networks(tmp_path / name)
    pooling(tmp_path / "own" / "a" / "model.onnx")
    with pytest.raises(UserError, match=r"model\.onnx does not say how images are prepared"):
        load_networks(tmp_path / "own")
    pooling(tmp_path / "own" / "a" / "other.onnx")
    with pytest.raises(UserError, match="a has 2 ONNX files: leave one of them there"):
        load_networks(tmp_path / "own")
