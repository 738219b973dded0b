"""Reading weights of TensorFlow.js: layouts, quantisation, and files that are refused."""

import json

import numpy as np
import pytest

from diffcf_jax.checkpoint.convert import main
from diffcf_jax.checkpoint.store import load_network
from diffcf_jax.checkpoint.tfjs import read_tfjs
from diffcf_jax.errors import UserError
from tests import seeded


def write(folder, arrays, quantised=()):
    """Writes arrays in TensorFlow's layouts, some of them as bytes; returns the manifest."""
    weights, data = [], b""
    for name, array in arrays.items():
        weight = {"name": name, "shape": list(array.shape), "dtype": "float32"}
        if name in quantised:
            weight["quantization"] = {"dtype": "uint8", "scale": 0.5, "min": -3}
            array = array.astype(np.uint8)
        weights.append(weight)
        data += array.tobytes()
    (folder / "weights.bin").write_bytes(data)
    manifest = [{"weights": weights, "paths": ["weights.bin"]}]
    path = folder / "manifest.json"
    path.write_text(json.dumps(manifest))
    return path


def test_layouts_and_quantisation(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {
        "conv/filters": rng.normal(size=(3, 5, 2, 4)).astype(np.float32),
        "depthwise_filter": rng.normal(size=(3, 3, 6, 1)).astype(np.float32),
        "dense": np.arange(6, dtype=np.float32).reshape(2, 3),
        "bias": np.float32([1, 2]),
    }
    found = read_tfjs(write(tmp_path, arrays, {"dense"}))
    assert list(found) == list(arrays)
    np.testing.assert_array_equal(
        found["conv/filters"], arrays["conv/filters"].transpose(3, 2, 0, 1)
    )
    assert found["depthwise_filter"].shape == (6, 1, 3, 3)
    np.testing.assert_array_equal(
        found["depthwise_filter"][4, 0], arrays["depthwise_filter"][:, :, 4, 0]
    )
    np.testing.assert_array_equal(found["dense"], 0.5 * arrays["dense"].T - 3)
    assert {array.dtype for array in found.values()} == {np.dtype("float32")}


def test_a_model_becomes_a_network(tmp_path, capsys):
    tf_layout = {
        name: array.transpose((2, 3, 0, 1) if "depthwise" in name else (2, 3, 1, 0))
        if array.ndim == 4 else array.T
        for name, array in seeded.state_dict(seeded.golden("face-api-age")["shapes"]).items()
    }  # fmt: skip
    path = write(tmp_path, tf_layout)
    out = tmp_path / "age"
    words = [str(path), "--kind", "face-api-age", "--out", str(out)]
    assert main([*words, "--flags", "--image_size 32"]) == 0
    network = load_network(out)
    count = sum(array.size for name, array in tf_layout.items() if "gender" not in name)
    assert repr(network) == f"Network(tiny_xception, 32x32 pixels, {count:,} parameters, in years)"
    ages = network.module.apply(network.variables, seeded.images(2, 64, 64, 3) / np.float32(255))
    np.testing.assert_allclose(ages, seeded.golden("face-api-age")["ages"], rtol=1e-5)
    del tf_layout["fc/age/bias"]
    write(tmp_path, tf_layout)
    assert main(words) == 2
    assert "1 missing (fc/age/bias)" in capsys.readouterr().err


@pytest.mark.parametrize(
    "change, message",
    [
        ({"paths": ["../weights.bin"]}, "leads out of"),
        ({"paths": ["nowhere.bin"]}, r"cannot read .*nowhere\.bin"),
        ({"paths": ["weights.bin"] * 2}, "8 bytes are left over"),
        ({"weights": [{"name": "a", "shape": [3], "dtype": "float32"}]}, "the data end within a"),
        ({"weights": [{"name": "a", "shape": [-2], "dtype": "float32"}]}, "the shape"),
        ({"weights": [{"name": "a", "shape": [2], "dtype": "string"}]}, "a is of type string"),
        ({"weights": [{"name": "a", "dtype": "float32"}]}, "shape"),
        ({"weights": 3}, "not iterable"),
    ],
)
def test_refused(tmp_path, change, message):
    path = write(tmp_path, {"a": np.float32([1, 2])})
    (group,) = json.loads(path.read_text())
    path.write_text(json.dumps([{**group, **change}]))
    with pytest.raises(UserError, match=message):
        read_tfjs(path)
