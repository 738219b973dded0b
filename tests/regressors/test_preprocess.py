import json

import jax
import numpy as np
import pytest
from PIL import Image

from diffcf_jax.errors import UserError
from diffcf_jax.regressors.preprocess import Preprocess, found_beside, parse_preprocess
from diffcf_jax.regressors.resize import filter_weights, resize

IMAGES = np.random.default_rng(0).random((2, 20, 15, 3)).astype(np.float32)


@pytest.mark.parametrize("size", [(7, 9), (40, 15), (33, 6)], ids=str)
@pytest.mark.parametrize(
    "method", ["box", "bilinear", "bicubic", "lanczos"],
)  # fmt: skip
def test_antialiased_resizes_equal_pils(method, size):
    ours = resize(IMAGES, *size, method)
    filters = {"box": 4, "bilinear": 2, "bicubic": 3, "lanczos": 1}
    for image, found in zip(IMAGES, np.asarray(ours), strict=True):
        for channel in range(3):
            one = Image.fromarray(image[..., channel])  # 32-bit floats
            expected = np.asarray(one.resize(size[::-1], filters[method]))
            np.testing.assert_allclose(found[..., channel], expected, atol=2e-6)


def test_resizes_without_antialiasing_interpolate_between_neighbours():
    # 4 pixels to 2: the middle between pixels 0 and 1, then between 2 and 3.
    np.testing.assert_allclose(
        filter_weights(4, 2, "bilinear", False), [[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]]
    )
    # 2 pixels to 4: the border repeats.
    np.testing.assert_allclose(
        filter_weights(2, 4, "bilinear", False), [[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]]
    )
    # Keys' filter with a = -0.75 in the middle between two pixels
    cubic = filter_weights(4, 2, "bicubic", False)
    np.testing.assert_allclose(cubic[0], [0.59375 - 0.09375, 0.59375, -0.09375, 0])
    np.testing.assert_allclose(filter_weights(6, 3, "nearest", True).argmax(1), [1, 3, 5])


def test_steps_come_in_the_documented_order():
    preprocess = parse_preprocess("size=10x8 crop=6 range=255 mean=1,2,3 std=4,5,6 channels=bgr")
    x = np.asarray(resize(IMAGES, 10, 8, "bilinear"))[:, 2:8, 1:7, ::-1]
    np.testing.assert_allclose(preprocess(IMAGES), (255 * x - [1, 2, 3]) / [4, 5, 6], rtol=2e-5)
    channels_first = parse_preprocess("layout=nchw")(IMAGES)
    np.testing.assert_array_equal(channels_first, IMAGES.transpose(0, 3, 1, 2))
    grey = parse_preprocess("channels=grey mean=0.5 std=0.5")(IMAGES)
    np.testing.assert_allclose(grey, 2 * (IMAGES @ [[0.299], [0.587], [0.114]]) - 1, atol=1e-6)
    assert np.all(jax.grad(lambda x: preprocess(x).sum())(IMAGES)[:, 8:12, 6:9] != 0)


def test_text_and_object_are_the_same():
    text = "size=256x256 crop=224x224 mean=0.485,0.456,0.406 std=0.229,0.224,0.225"
    preprocess = parse_preprocess("imagenet size=256 crop=224")
    assert str(preprocess) == text
    assert parse_preprocess(text) == preprocess
    assert parse_preprocess("none") == Preprocess() and str(Preprocess()) == ""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("imagent", "preprocess has 'imagent': give key=value"),
        ("size=0", "it must be a number of pixels, or HEIGHTxWIDTH"),
        ("size=3,4", "size=3,4: it must be"),
        ("range=nan", "range=nan: it must be a number"),
        ("mean=1,2", "has 2 numbers in mean: give one, or 3 for rgb images"),
        ("std=1,0,1", "has a 0 in std"),
        ("range=1 range=2", "has range twice"),
        ("channels=rgba", "it must be rgb, bgr or grey"),
        ("antialias=1", "it must be true or false"),
    ],
)
def test_wrong_texts_are_told(text, expected):
    with pytest.raises(UserError, match=expected):
        parse_preprocess(text)


def test_a_crop_that_is_larger_than_the_image_is_refused():
    with pytest.raises(UserError, match="crops 30x30 pixels out of 20x15"):
        parse_preprocess("crop=30")(IMAGES)


def test_configs_of_hugging_face_and_timm_are_read(tmp_path):
    assert found_beside(tmp_path / "m.onnx") is None
    timm = {
        "pretrained_cfg": {
            "input_size": [3, 224, 224], "interpolation": "bicubic", "crop_pct": 0.875,
            "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25],
        }
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(timm))
    expected = "size=256 crop=224 method=bicubic mean=0.5,0.5,0.5 std=0.25,0.25,0.25"
    assert found_beside(tmp_path / "m.onnx") == parse_preprocess(expected)
    hugging_face = {
        "do_resize": True, "size": {"height": 64, "width": 48}, "resample": 2, "do_rescale": True,
        "rescale_factor": 0.00392156862745098, "do_normalize": True,
        "image_mean": [0.1, 0.2, 0.3], "image_std": [1, 1, 2],
    }  # fmt: skip
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(hugging_face))
    expected = parse_preprocess("size=64x48 mean=0.1,0.2,0.3 std=1,1,2")
    assert found_beside(tmp_path / "m.onnx") == expected
    (tmp_path / "preprocessor_config.json").write_text('{"image_mean": 3}')
    with pytest.raises(UserError, match="describes no pre-processing that can be read"):
        found_beside(tmp_path / "m.onnx")
