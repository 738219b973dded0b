"""Distances to training images: copies are found, also mirrored, and held-out images are not."""

import numpy as np
import pytest

from diffcf_jax.errors import UserError
from diffcf_jax.files import encode_png
from eval.metrics.batch import BATCH_SIZE, Batch
from eval.metrics.nearest import (
    in_words,
    load_training_images,
    nearest_in_pixels,
    nearest_to_dlib,
    too_near,
)
from tests import seeded


def test_the_nearest_image_or_its_mirror_image(tmp_path):
    training = seeded.images(BATCH_SIZE + 5, 8, 8, 3)  # more than are compared at a time
    for i, image in enumerate(training):
        (tmp_path / f"{i:03}.png").write_bytes(encode_png(image))
    found = load_training_images(tmp_path, 8)
    np.testing.assert_array_equal(found, training)
    made = training[[-1, 3]].astype(np.float32) / 255
    made = np.stack([made[0], made[1][:, ::-1] * 0.9])
    inputs = np.random.default_rng(5).random((2, 8, 8, 3), np.float32)
    values = nearest_in_pixels(found)(Batch([], inputs, made, None), None)
    assert list(values) == ["train_l2", "train_l2_input"]
    offset = np.sqrt(np.mean((0.1 * training[3] / 255.0) ** 2))
    assert values["train_l2"] == pytest.approx([0, offset], rel=1e-5, abs=1e-6)
    all_of_them = np.concatenate([training, training[:, :, ::-1]]) / 255
    expected = [np.sqrt(((all_of_them - x) ** 2).mean((1, 2, 3)).min()) for x in inputs]
    assert values["train_l2_input"] == pytest.approx(expected, rel=1e-5)


def test_the_nearest_embedding():
    training = seeded.images(BATCH_SIZE + 5, 4, 4, 3)
    values = nearest_to_dlib(training, lambda x: x.mean((1, 2)))(
        Batch([], training[:2] / np.float32(255) + 0.25, training[-2:] / np.float32(255), None),
        None,
    )
    assert values["train_dlib"] == pytest.approx([0, 0], abs=1e-6)
    means = training.mean((1, 2)) / 255
    nearest = np.linalg.norm(means[:, None] - means[:2] - 0.25, axis=2).min(0)
    assert values["train_dlib_input"] == pytest.approx(nearest, rel=1e-5)


def test_copies_are_a_sign_and_new_images_are_none():
    inputs = np.arange(1, 101, dtype=np.float32)
    values = {"train_l2": inputs, "train_l2_input": inputs, "l2": inputs}
    values |= {"train_dlib": np.where(inputs > 60, 0, inputs), "train_dlib_input": inputs}
    shares = too_near(values)
    assert shares == pytest.approx({"train_l2_share": 0.05, "train_dlib_share": 0.45})
    pixels, features = in_words({**shares, "l2": 50.0}, 100)
    assert pixels.startswith("5.0% of the counterfactuals are nearer") and "no sign" in pixels
    assert features.startswith("45.0%") and "originals: a sign" in features
    assert too_near({"l2": inputs}) == {} and in_words({"l2": 1.0}, 100) == []
    assert in_words(shares, 19) == []  # a twentieth of them is not one


def test_user_errors(tmp_path):
    with pytest.raises(UserError, match="set --train to a folder of images"):
        load_training_images(tmp_path / "nowhere", 8)
