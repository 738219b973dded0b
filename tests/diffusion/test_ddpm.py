"""Denoising with a network that knows the image, F_tau and its gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffcf_jax.diffusion.ddpm import noise_and_denoise, p_mean_variance
from diffcf_jax.diffusion.schedule import make_diffusion, q_sample
from tests.parity_rows import assert_parity

DIFFUSION = make_diffusion(500, respacing="25")
SHAPE = (4, 4, 3)


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape, jnp.float64)


def knowing(x_0, diffusion=DIFFUSION):
    """A network that knows x_0: its noise, and a variance between the two bounds."""
    tables = diffusion.sqrt_alphas_cumprod, diffusion.sqrt_one_minus_alphas_cumprod
    by_t = [np.zeros(diffusion.original_steps) for _ in tables]
    for table, values in zip(by_t, tables, strict=True):
        table[diffusion.timesteps] = values

    def model(x_t, t):
        a, b = (jnp.asarray(table)[t] for table in by_t)
        eps = (x_t - a * x_0) / b
        return jnp.concatenate([eps, 0.3 * jnp.ones_like(eps)], axis=-1)

    return model


def smooth(x_t, t):
    """A network that is cheap and nonlinear."""
    eps = jnp.sin(2 * x_t + 0.01 * t) + 0.3 * jnp.roll(x_t, 1, axis=1)
    return jnp.concatenate([eps, jnp.cos(eps)], axis=-1)


def test_p_mean_variance():
    x_0, noise = 0.5 * normal(0, *SHAPE), normal(1, *SHAPE)
    t = 3
    x_t = q_sample(DIFFUSION, x_0, t, noise)
    x_0 = jnp.clip(x_0, -1, 1)
    output = knowing(x_0)(x_t, DIFFUSION.model_t(jnp.asarray(t)))
    p = p_mean_variance(DIFFUSION, output, x_t, t)
    np.testing.assert_allclose(p.x_start, x_0, atol=1e-12)
    fraction = (0.3 + 1) / 2
    log_variance = fraction * np.log(DIFFUSION.betas[t]) + (1 - fraction) * np.log(
        DIFFUSION.posterior_variance[t]
    )
    np.testing.assert_allclose(p.log_variance, np.full(SHAPE, log_variance), rtol=1e-12)
    np.testing.assert_allclose(p.variance, np.exp(p.log_variance), rtol=1e-12)


@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
def test_fixed_variances(variance):
    diffusion = make_diffusion(500, respacing="25", variance=variance)
    p = p_mean_variance(diffusion, normal(0, *SHAPE), normal(1, *SHAPE), 4)
    expected = diffusion.betas[4] if variance == "fixed_large" else diffusion.posterior_variance[4]
    np.testing.assert_allclose(p.variance, np.full(SHAPE, expected), rtol=1e-12)
    np.testing.assert_allclose(p.log_variance, np.log(p.variance), rtol=1e-12)


def test_a_clipped_prediction_has_no_gradient():
    diffusion = make_diffusion(1000, predict="x_start", variance="fixed_small")
    output = jnp.array([-3.0, -0.5, 0.5, 3.0]).reshape(1, 4, 1)
    x_t = jnp.zeros((1, 4, 1))

    def mean(output, clip):
        return p_mean_variance(diffusion, output, x_t, 10, clip).mean.sum()

    coefficient = diffusion.posterior_mean_coef1[10]
    gradient = jax.grad(mean)(output, True).ravel()
    np.testing.assert_allclose(gradient, coefficient * np.array([0, 1, 1, 0]), rtol=1e-12)
    np.testing.assert_allclose(jax.grad(mean)(output, False), coefficient, rtol=1e-12)


def test_denoising_returns_what_the_network_knows():
    x, x_0 = normal(0, 2, *SHAPE), jnp.clip(normal(1, 2, *SHAPE), -1, 1)
    image = noise_and_denoise(DIFFUSION, knowing(x_0), x, normal(2, 5, 2, *SHAPE))
    np.testing.assert_allclose(image, x_0, atol=1e-12)


def test_the_noises_are_used_in_order():
    x, noises = 0.3 * normal(0, *SHAPE), normal(1, 3, *SHAPE)
    x_t = q_sample(DIFFUSION, x, 2, noises[0])
    for t in (2, 1, 0):
        p = p_mean_variance(DIFFUSION, smooth(x_t, DIFFUSION.timesteps[t]), x_t, t)
        x_t = p.mean
        if t > 0:
            x_t = x_t + jnp.exp(p.log_variance / 2) * noises[3 - t]
    image = noise_and_denoise(DIFFUSION, smooth, x, noises)
    np.testing.assert_allclose(image, x_t, atol=1e-13)
    other = noise_and_denoise(DIFFUSION, smooth, x, noises, remat=True)
    np.testing.assert_allclose(image, other, atol=1e-13)


def test_gradient_equals_finite_differences():
    x, direction = 0.3 * normal(0, *SHAPE), normal(1, *SHAPE)
    noises = 0.1 * normal(2, 4, *SHAPE)

    @jax.jit
    def value(x):
        return jnp.sum(jnp.sin(noise_and_denoise(DIFFUSION, smooth, x, noises, remat=True)))

    h = 1e-6
    numerical = (value(x + h * direction) - value(x - h * direction)) / (2 * h)
    analytic = jnp.vdot(jax.grad(value)(x), direction)
    np.testing.assert_allclose(analytic, numerical, rtol=1e-7)


def test_recorded_f_tau():
    assert_parity("acre_a", ["ftau_", "initial_"], at_least=10)
