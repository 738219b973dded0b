import jax
import jax.numpy as jnp
import numpy as np

from diffcf_jax.training.augment import (
    GEOMETRY,
    augment,
    random_colors,
    random_flips,
    random_geometry,
    random_mirror,
    random_rolls,
    random_tiles,
)
from diffcf_jax.training.config import Augmentation


def test_augmentations_move_pixels_only():
    images = jax.random.uniform(jax.random.key(0), (16, 5, 6, 3))
    for change in (random_flips, random_mirror, random_rolls):
        moved = jax.jit(change)(images, jax.random.key(1))
        np.testing.assert_allclose(
            jnp.sort(moved.reshape(16, -1)), jnp.sort(images.reshape(16, -1))
        )
        assert not np.allclose(moved, images)


def test_directions():
    images = jax.random.uniform(jax.random.key(0), (32, 5, 6, 3))
    for change, wanted in ((random_flips, {0, 1, 2, 3}), (random_mirror, {0, 1})):
        kinds = set()
        changed = jax.jit(change)(images, jax.random.key(1))
        for before, after in zip(np.asarray(images), np.asarray(changed), strict=True):
            options = [before, before[:, ::-1], before[::-1], before[::-1, ::-1]]
            kinds |= {i for i, option in enumerate(options) if np.array_equal(option, after)}
        assert kinds == wanted


def test_what_is_told_of_the_geometry_is_what_happened():
    size, n = 48, 64
    spot = np.array([27.0, 19.0])  # x, y
    x, y = np.meshgrid(np.arange(size), np.arange(size), indexing="xy")
    blob = np.exp(-((x - spot[0]) ** 2 + (y - spot[1]) ** 2) / (2 * 3**2))
    images = np.broadcast_to(blob[None, :, :, None], (n, size, size, 1))
    moved, told = jax.jit(random_geometry, static_argnums=2)(images, jax.random.key(0), 0.7)
    seen = 0
    for image, (fx, fy, s, cos, sin, along, across, tx, ty) in zip(
        np.asarray(moved), np.asarray(told, np.float64), strict=True
    ):
        stretch, axis = np.hypot(along, across), np.arctan2(across, along) / 2
        turn = np.array([[cos + 1, -sin], [sin, cos + 1]])
        axes = np.array([[np.cos(axis), -np.sin(axis)], [np.sin(axis), np.cos(axis)]])
        stretched = axes @ np.diag([2 ** (0.2 * stretch), 2 ** (-0.2 * stretch)]) @ axes.T
        matrix = 2 ** (0.2 * s) * turn @ stretched @ np.diag([1 - 2 * fx, 1 - 2 * fy])
        centre = (size - 1) / 2
        there = centre + matrix @ (spot - centre) + np.array([tx, ty]) * size / 8
        if (there > 1).all() and (there < size - 2).all():
            column, row = np.round(there).astype(int)
            assert image[row, column, 0] > 0.9
            seen += 1
    assert seen > n / 2


def test_images_whose_geometry_stays_are_untouched():
    images = jax.random.uniform(jax.random.key(0), (64, 16, 16, 3))
    moved, told = jax.jit(random_geometry, static_argnums=2)(images, jax.random.key(1), 0.12)
    same = (np.asarray(moved) == np.asarray(images)).all((1, 2, 3))
    np.testing.assert_array_equal(same, (np.asarray(told) == 0).all(1))
    assert (
        0.3 < same.mean() < 0.7
    )  # 0.94^2 0.88^4 = 0.53: a flip is only drawn in half of the cases
    assert moved.min() >= 0 and moved.max() <= 1


def test_colors_change_the_named_channels_only():
    images = jnp.full((64, 16, 16, 3), 0.5)
    changed = jax.jit(random_colors)(images, jax.random.key(0), (0.0, 0.2, 0.1))
    np.testing.assert_array_equal(changed[..., 0], images[..., 0])
    spread = changed.std((0, 1, 2))
    assert 0.05 < spread[2] < spread[1] < 0.3
    # Patches: seven of eight neighbours share a colour.
    assert (jnp.diff(changed[..., 1], axis=2) == 0).mean() > 0.85


def test_tiles_keep_the_mean_of_every_8x8_square():
    images = jnp.full((16, 32, 24, 3), 0.5)
    changed = np.asarray(jax.jit(random_tiles)(images, jax.random.key(0), 0.3))
    squares = np.lib.stride_tricks.sliding_window_view(changed, (8, 8), axis=(1, 2))
    np.testing.assert_allclose(squares.mean((-2, -1)), 0.5, atol=1e-5)
    spread = changed.std(axis=(1, 2, 3))
    assert spread.max() > 0.2 and spread.min() < 0.06


def test_options():
    images, key = jax.random.uniform(jax.random.key(0), (4, 8, 8, 3)), jax.random.key(1)
    changing = jax.jit(augment, static_argnums=2)
    plain, geometry = changing(images, key, Augmentation())
    np.testing.assert_array_equal(plain, images)
    assert geometry is None
    assert not np.array_equal(changing(images, key, Augmentation(rolls=True))[0], images)
    turned, geometry = changing(images, key, Augmentation(geometric=1.0))
    assert not np.array_equal(turned, images) and geometry.shape == (4, GEOMETRY)
