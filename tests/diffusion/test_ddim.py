"""DDIM: steps, inversion and decoding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffcf_jax.diffusion.ddim import ddim_step, decode, invert
from diffcf_jax.diffusion.schedule import make_diffusion, q_sample
from tests.parity_rows import assert_parity

SHAPE = (4, 4, 3)


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape, jnp.float64)


def gaussian_denoiser(diffusion, std):
    """The best prediction of the noise, and of v, for images of independent N(0, std^2) pixels."""
    alphas_cumprod = np.ones(diffusion.original_steps)
    alphas_cumprod[diffusion.timesteps] = diffusion.alphas_cumprod

    def model(x_t, t):
        a = jnp.asarray(alphas_cumprod)[t]
        variance = a * std**2 + 1 - a
        if diffusion.predict == "eps":
            return jnp.sqrt(1 - a) * x_t / variance
        return jnp.sqrt(a * (1 - a)) * (1 - std**2) * x_t / variance

    return model


def test_steps():
    assert_parity("ddim", at_least=40)
    assert_parity("ddim", x64=False, at_least=30)


def test_a_step_moves_along_the_noise():
    diffusion = make_diffusion(1000, respacing="ddim10")
    x_0, noise = jnp.clip(normal(0, *SHAPE), -1, 1), normal(1, *SHAPE)
    for t in (1, 5, 9):
        x_t = q_sample(diffusion, x_0, t, noise)
        down = ddim_step(diffusion, noise, x_t, t)
        np.testing.assert_allclose(down, q_sample(diffusion, x_0, t - 1, noise), atol=1e-12)
        if t < 9:
            up = ddim_step(diffusion, noise, x_t, t, reverse=True)
            np.testing.assert_allclose(up, q_sample(diffusion, x_0, t + 1, noise), atol=1e-12)
    # The ends: the image, and the noise alone
    x_t = q_sample(diffusion, x_0, 0, noise)
    np.testing.assert_allclose(ddim_step(diffusion, noise, x_t, 0), x_0, atol=1e-12)
    x_t = q_sample(diffusion, x_0, 9, noise)
    last = ddim_step(diffusion, noise, x_t, 9, reverse=True)
    np.testing.assert_allclose(last, noise, atol=1e-10)


def test_predictions_are_clipped_and_the_noise_follows():
    diffusion = make_diffusion(1000, respacing="ddim10")
    x_t = jnp.full(SHAPE, 2.5)
    step = ddim_step(diffusion, jnp.zeros(SHAPE), x_t, 4)
    noise = (x_t - diffusion.sqrt_alphas_cumprod[4]) / diffusion.sqrt_one_minus_alphas_cumprod[4]
    np.testing.assert_allclose(step, q_sample(diffusion, jnp.ones(SHAPE), 3, noise), atol=1e-12)


@pytest.mark.parametrize("predict", ["eps", "v"])
def test_decoding_undoes_inversion(predict):
    x = jnp.clip(0.3 * normal(0, *SHAPE), -0.9, 0.9)
    errors, code_errors = [], []
    for steps in (10, 50, 250):
        diffusion = make_diffusion(1000, respacing=f"ddim{steps}", predict=predict)
        model = gaussian_denoiser(diffusion, 0.3)
        x_T = invert(diffusion, model, x)
        # Pixels of standard deviation 0.3 become standard normal ones.
        code_errors.append(float(jnp.abs(x_T - x / 0.3).max()))
        errors.append(float(jnp.abs(decode(diffusion, model, x_T) - x).max()))
    for found, bound in ((errors, 0.03), (code_errors, 0.2)):
        assert found[0] > found[1] > found[2]
        assert found[2] < bound, found


def test_loops_are_the_steps():
    diffusion = make_diffusion(1000, respacing="ddim5")

    def model(x_t, t):
        return jnp.sin(3 * x_t + 0.001 * t)

    x = 0.3 * normal(0, *SHAPE)
    x_t = x
    for t in range(5):
        x_t = ddim_step(diffusion, model(x_t, 200 * t), x_t, t, reverse=True)
    np.testing.assert_allclose(invert(diffusion, model, x), x_t, atol=1e-12)
    image = x_t
    for t in range(4, -1, -1):
        image = ddim_step(diffusion, model(image, 200 * t), image, t)
    for remat in (False, True):
        np.testing.assert_allclose(decode(diffusion, model, x_t, remat), image, atol=1e-12)


def test_gradient_equals_finite_differences():
    diffusion = make_diffusion(1000, respacing="ddim5")
    x_T, direction = normal(0, *SHAPE), normal(1, *SHAPE)

    @jax.jit
    def value(code):
        def model(x_t, t):
            return 0.8 * x_t + 0.2 * jnp.sin(code + 0.001 * t)

        return jnp.sum(jnp.cos(decode(diffusion, model, x_T, remat=True)))

    h = 1e-6
    numerical = (value(h * direction) - value(-h * direction)) / (2 * h)
    analytic = jnp.vdot(jax.grad(value)(jnp.zeros(SHAPE)), direction)
    np.testing.assert_allclose(analytic, numerical, rtol=1e-6)
