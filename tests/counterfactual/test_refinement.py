"""Masks and the refinement."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffcf_jax.counterfactual.refinement import change_mask, dilate, refine
from diffcf_jax.diffusion.sampler import p_mean_variance
from diffcf_jax.diffusion.schedule import make_diffusion, q_sample

DIFFUSION = make_diffusion(500, respacing="25")


def uniform(seed, *shape):
    return jax.random.uniform(jax.random.key(seed), shape)


def model(x_t, t):
    eps = jnp.sin(2 * x_t + 0.01 * t)
    return jnp.concatenate([eps, 0.5 * eps], axis=-1)


def test_change_mask():
    x = uniform(0, 5, 6, 3)
    x_adv = x.at[2, 3].add(jnp.array([0.1, -0.2, 0.1])).at[0, 0, 1].add(0.1)
    mask = change_mask(x, x_adv)
    assert mask.shape == (5, 6, 1)
    np.testing.assert_allclose(mask[2, 3], 1)
    np.testing.assert_allclose(mask[0, 0], 0.25, rtol=1e-5)
    assert jnp.count_nonzero(mask) == 2


def test_the_division_of_the_mask_is_exact():
    change = uniform(3, 16, 16, 1)
    mask = jax.jit(change_mask)(jnp.zeros_like(change), change)
    np.testing.assert_array_equal(mask, np.asarray(change) / np.asarray(change).max())


def test_equal_images_are_kept_whole():
    x = uniform(0, 5, 6, 3)
    mask = change_mask(x, x)
    np.testing.assert_array_equal(mask, 0)
    assert (dilate(mask, 3) < 0.15).all()


@pytest.mark.parametrize("size", [1, 3, 5])
def test_dilate(size):
    mask = uniform(0, 7, 9, 1)
    padded = np.pad(mask, ((size // 2,) * 2, (size // 2,) * 2, (0, 0)), constant_values=-1)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size), axis=(0, 1))
    np.testing.assert_array_equal(dilate(mask, size), windows.max((-1, -2)))


def test_kept_pixels_are_the_originals():
    x, x_adv = uniform(0, 6, 6, 3), uniform(1, 6, 6, 3)
    noises = jax.random.normal(jax.random.key(2), (6, 6, 6, 3))
    keep = (uniform(3, 6, 6, 1) < 0.5).astype(float)
    image = refine(DIFFUSION, model, x, x_adv, keep, noises)
    assert image.min() >= 0 and image.max() <= 1
    np.testing.assert_allclose((image - x) * keep, 0, atol=1e-6)
    assert jnp.abs((image - x) * (1 - keep)).max() > 0.05
    np.testing.assert_allclose(
        refine(DIFFUSION, model, x, x_adv, jnp.ones_like(keep), noises), x, atol=1e-6
    )


def test_the_noises_are_used_in_order():
    x, x_adv = uniform(0, 4, 4, 3), uniform(1, 4, 4, 3)
    noises = jax.random.normal(jax.random.key(2), (6, 4, 4, 3))
    keep = (uniform(3, 4, 4, 1) < 0.5).astype(float)
    x_t = q_sample(DIFFUSION, 2 * x_adv - 1, 2, noises[0])
    for i, t in enumerate((2, 1, 0)):
        x_t = jnp.where(keep == 1, q_sample(DIFFUSION, 2 * x - 1, t, noises[1 + i]), x_t)
        p = p_mean_variance(DIFFUSION, model(x_t, DIFFUSION.timesteps[t]), x_t, t)
        x_t = p.mean
        if t > 0:
            x_t = x_t + jnp.exp(p.log_variance / 2) * noises[4 + i]
    expected = jnp.clip(jnp.where(keep == 1, 2 * x - 1, x_t) / 2 + 0.5, 0, 1)
    image = refine(DIFFUSION, model, x, x_adv, keep, noises)
    np.testing.assert_allclose(image, expected, atol=1e-5)
