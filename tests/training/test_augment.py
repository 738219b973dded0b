import jax
import jax.numpy as jnp
import numpy as np

from diffcf_jax.training.augment import (
    augment,
    random_colors,
    random_flips,
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
    np.testing.assert_array_equal(changing(images, key, Augmentation()), images)
    assert not np.array_equal(changing(images, key, Augmentation(rolls=True)), images)
