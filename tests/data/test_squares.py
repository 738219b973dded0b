"""The squares data set, bit for bit that of the original's generator."""

import hashlib
import json
import pathlib

import numpy as np
import pytest

from diffcf_jax.data.squares import (
    Squares,
    VariedSquares,
    background_color,
    inner_mask,
    inner_square_color,
    mirror_target,
    render_square,
)
from diffcf_jax.errors import UserError

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "squares"


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN / "io.npz") as arrays:
        return dict(arrays), json.loads((GOLDEN / "config.json").read_text())


def check(squares, index, images, masks, csv):
    np.testing.assert_array_equal(squares.images[index], images)
    np.testing.assert_array_equal(squares.masks[index], masks > 0)
    for i, line in zip(index, csv, strict=True):
        color, background, row, column = map(float, line.split(",")[5:])
        record = squares[i]
        np.testing.assert_array_equal(record.image, squares.images[i])
        np.testing.assert_array_equal(record.mask, squares.masks[i])
        assert (record.id, record.name, record.y) == (i, squares.names[i], color)
        assert squares.labels[i] == np.float32(color)
        assert record.target == float(mirror_target(color))
        assert squares.latents[i].tolist() == [
            round(color * 255),
            round(background * 255),
            row * 64,
            column * 64,
        ]


def test_train_equals_the_original(golden):
    arrays, config = golden
    squares = Squares("train", limit=64)
    check(
        squares,
        config["train_index"],
        arrays["train_images"],
        arrays["train_masks"],
        config["train_csv"],
    )
    # Made by running the original's drawing code.
    digest = hashlib.sha256(squares.images.tobytes()).hexdigest()
    assert digest == "a54f3bf4ef58de8ffa43782b476f1c7aff4364a62eae9f533a04139f897f86a0"


def test_validation_equals_the_original(golden):
    arrays, config = golden
    squares = Squares("validation")
    for part, offset in ("lower", 0), ("upper", 315):
        index = [offset + i for i in config["val_index"]]
        check(
            squares,
            index,
            arrays[f"val_{part}_images"],
            arrays["val_masks"],
            config[f"val_{part}_csv"],
        )
    digest = hashlib.sha256(squares.images.tobytes()).hexdigest()
    assert digest == "76eeb38d01176592c221b8f432fff4194cf422076966021484a445a539ec912b"


def test_validation_is_a_grid():
    squares = Squares("validation")
    assert len(squares) == len(squares.names) == len(set(squares.names)) == 630
    assert squares.names[0] == "lower_000.png" and squares.names[-1] == "upper_314.png"
    assert len(np.unique(squares.latents, axis=0)) == 630
    # inner values, backgrounds, rows, columns
    assert [len(set(column)) for column in squares.latents.T] == [10, 7, 3, 3]
    assert (squares.masks.sum(axis=(1, 2)) == 64).all()
    assert squares.labels.min() == 0 and squares.labels.max() == 1
    # The mirror of a lower image is its upper twin: same place, background and noise.
    lower, upper = squares.images[:315], squares.images[315:]
    np.testing.assert_array_equal(lower[..., 1:], upper[..., 1:])
    targets = np.array([squares[i].target for i in range(630)], dtype=np.float32)
    np.testing.assert_array_equal(targets[:315], squares.labels[315:])
    np.testing.assert_array_equal(targets[315:], squares.labels[:315])


def test_render_square(golden):
    arrays, _ = golden
    latents, noises = arrays["latents_color_a_color_b_x_y"], arrays["noises"]
    for latent, noise, image in zip(latents, noises, arrays["images"], strict=True):
        place = np.where(latent[2:] < 0, 26, latent[2:])  # -1 stands for the centre
        np.testing.assert_array_equal(render_square(*latent[:2], *place, noise), image)


def test_render_square_without_noise():
    image = render_square(inner=200, background=50, row=0, column=52, noise=np.zeros([64, 64, 3]))
    assert image.shape == (64, 64, 3) and image.dtype == np.uint8
    mask = inner_mask(0, 52)
    assert mask[2:10, 54:62].all() and mask.sum() == 64
    np.testing.assert_array_equal(image[mask], np.tile([200, 0, 0], [64, 1]))
    border = np.zeros([64, 64], dtype=bool)
    border[0:12, 52:64] = True
    assert (image[border & ~mask] == 127).all()
    assert (image[~border] == 50).all()


def test_mirror_target_of_every_grey_value(golden):
    arrays, _ = golden
    for suffix in "", "_random":
        mirrored = mirror_target(arrays[f"targets_y{suffix}"])
        np.testing.assert_array_equal(mirrored.astype(np.float32), arrays[f"targets_out{suffix}"])
    values = np.arange(256)
    expected = np.where(values < 128, values + 128, values - 128) / 255
    np.testing.assert_array_equal(mirror_target(values / 255), expected)
    np.testing.assert_array_equal(mirror_target((values / 255).astype(np.float32)), expected)


def test_colors(golden):
    arrays, _ = golden
    image, mask = arrays["images"][1] / np.float32(255), arrays["color_mask"] > 0
    np.testing.assert_allclose(
        inner_square_color(image, mask), arrays["inner_square_color"], atol=1e-6
    )
    np.testing.assert_allclose(background_color(image, mask), arrays["background_color"], atol=1e-6)
    # Batches give one value for each image.
    squares = Squares("validation")
    some = squares.images[:3] / 255, squares.masks[:3]
    for color in inner_square_color, background_color:
        each = [color(image, mask) for image, mask in zip(*some, strict=True)]
        np.testing.assert_allclose(color(*some), each, rtol=1e-12)


def test_access():
    squares = Squares("train", limit=5)
    assert len(squares) == 5 and squares.images.shape == (5, 64, 64, 3)
    np.testing.assert_array_equal(squares.images, Squares("train", limit=7).images[:5])
    assert squares[-1].id == 4
    assert [record.name for record in squares][-1] == "train_00004.png"
    with pytest.raises(IndexError):
        squares[5]
    assert len(Squares("train")) == len(set(Squares("train").names)) == 16_000
    with pytest.raises(ValueError):
        squares.images[0, 0, 0, 0] = 1


@pytest.mark.parametrize(
    "arguments, message",
    [(["test"], '"train" or "validation"'), (["train", 0], "data.limit")],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(UserError, match=message):
        Squares(*arguments)


def test_distractions_change_everything_but_the_inner_square():
    plain, distracting = Squares("train", 32), VariedSquares(distraction=0.2, limit=32)
    masks = plain.masks
    np.testing.assert_array_equal(distracting.images[masks], plain.images[masks])
    np.testing.assert_array_equal(distracting.labels, plain.labels)
    np.testing.assert_array_equal(distracting[3].image, distracting.images[3])
    change = distracting.images.astype(float) - plain.images
    assert distracting.images.dtype == np.uint8
    strength = np.array([c[~mask].std() for c, mask in zip(change, masks, strict=True)])
    assert strength.min() < 10 and 30 < strength.max() < 60  # at most 0.2 * 255 = 51, and chance
    # The same image whatever the number of images, and another change for each.
    few = VariedSquares(distraction=0.2, limit=4)
    np.testing.assert_array_equal(few.images, distracting.images[:4])
    assert not np.array_equal(change[0], change[1])


def test_ends_are_drawn_again_as_the_data_set_draws_them():
    plain, varied = Squares("train", 400), VariedSquares(ends=0.25, limit=400)
    changed = varied.latents[:, 0] != plain.latents[:, 0]
    assert 0.18 < changed.mean() < 0.32
    assert set(varied.latents[changed, 0]) == {0, 255}
    np.testing.assert_allclose(varied.labels, varied.latents[:, 0] / 255, rtol=1e-6)
    assert varied[int(np.argmax(changed))].y in (0.0, 1.0)
    # Only the inner square is drawn, with clipped noise.
    masks = varied.masks
    np.testing.assert_array_equal(masks, plain.masks)
    np.testing.assert_array_equal(varied.images[~masks], plain.images[~masks])
    np.testing.assert_array_equal(varied.images[~changed], plain.images[~changed])
    red = np.array([i[m][:, 0].mean() for i, m in zip(varied.images, masks, strict=True)])
    dark, bright = changed & (varied.labels == 0), changed & (varied.labels == 1)
    # E max(n, 0) = 20 / sqrt(2 pi) = 7.98, and truncation takes a quarter
    assert abs(red[dark].mean() - 7.7) < 1 and abs(red[bright].mean() - 246.8) < 1
    np.testing.assert_array_equal(VariedSquares(ends=0.25, limit=9).images, varied.images[:9])


def test_a_planted_background_follows_the_inner_value():
    plain, planted = Squares("train", 200), VariedSquares(planted=0.1, limit=200)
    np.testing.assert_array_equal(planted.latents[:, [0, 2, 3]], plain.latents[:, [0, 2, 3]])
    np.testing.assert_array_equal(planted.masks, plain.masks)
    gap = (planted.latents[:, 1] - planted.latents[:, 0]) / 255
    inside = (planted.latents[:, 1] > 0) & (planted.latents[:, 1] < 255)
    assert 0.07 < gap[inside].std() < 0.12 and abs(gap.mean()) < 0.03
    assert planted.latents[:, 1].min() >= 0 and planted.latents[:, 1].max() <= 255
    # What is drawn is what the latents say, but for noise that is clipped at black and white.
    shown = np.array([i[~m].mean() for i, m in zip(planted.images, planted.masks, strict=True)])
    assert np.corrcoef(shown, planted.latents[:, 1])[0, 1] > 0.99
    red = np.array([i[m][:, 0].mean() for i, m in zip(planted.images, planted.masks, strict=True)])
    assert np.abs(red - planted.latents[:, 0]).max() < 15
    few = VariedSquares(planted=0.1, limit=4)
    np.testing.assert_array_equal(few.images, planted.images[:4])
