"""Ancestral sampling, F_tau, pinned pixels and DDIM, with networks that know the answer."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffcf_jax.diffusion.sampler import (
    Keep,
    bind,
    ddim_step,
    decode,
    invert,
    noise_and_denoise,
    p_mean_variance,
    p_sample,
    p_sample_loop,
)
from diffcf_jax.diffusion.schedule import make_diffusion, q_sample
from diffcf_jax.models.layers import ResBlock

DIFFUSION = make_diffusion(500, respacing="25")
SHAPE = (4, 4, 3)


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def by_timestep(diffusion, values):
    """Values of the respaced process at the timesteps of the original one."""
    table = np.ones(diffusion.original_steps)
    table[diffusion.timesteps] = values
    return jnp.asarray(table)


def knowing(x_0, diffusion=DIFFUSION):
    """A network that knows x_0: its noise, and a variance between the two bounds."""
    a = by_timestep(diffusion, diffusion.sqrt_alphas_cumprod)
    b = by_timestep(diffusion, diffusion.sqrt_one_minus_alphas_cumprod)

    def model(x_t, t):
        eps = (x_t - a[t] * x_0) / b[t]
        return jnp.concatenate([eps, 0.3 * jnp.ones_like(eps)], axis=-1)

    return model


def gaussian(diffusion, std):
    """The best prediction of the noise, and of v, for images of independent N(0, std^2) pixels."""
    alphas_cumprod = by_timestep(diffusion, diffusion.alphas_cumprod)

    def model(x_t, t):
        a = alphas_cumprod[t]
        variance = a * std**2 + 1 - a
        if diffusion.predict == "eps":
            return jnp.sqrt(1 - a) * x_t / variance
        return jnp.sqrt(a * (1 - a)) * (1 - std**2) * x_t / variance

    return model


def smooth(x_t, t):
    """A network that is cheap and nonlinear."""
    eps = jnp.sin(2 * x_t + 0.01 * t) + 0.3 * jnp.roll(x_t, 1, axis=1)
    return jnp.concatenate([eps, jnp.cos(eps)], axis=-1)


def assert_gradient(value, x, direction, rtol):
    """Asserts that the gradient of a function equals finite differences."""
    h = 1e-6
    numerical = (value(x + h * direction) - value(x - h * direction)) / (2 * h)
    analytic = jnp.vdot(jax.grad(value)(x), direction)
    np.testing.assert_allclose(analytic, numerical, rtol=rtol)


# The closure


def conditioned(variables, x_t, t, z_sem, scale=1.0):
    """A network of batches whose output depends on everything it is given."""
    assert t.shape == z_sem.shape[:1] == x_t.shape[:1]
    rows = variables * z_sem.sum(1) + t
    return (scale * x_t + rows.reshape(-1, *[1] * (x_t.ndim - 1))).astype(jnp.float32)


def test_bind_serves_one_image_and_a_batch_alike():
    x, z = normal(0, 2, *SHAPE), normal(1, 2, 5)
    t = jnp.asarray(7)
    batch = bind(conditioned, 2.0, z, scale=3.0)(x, t)
    rows = 2 * z.sum(1) + 7
    np.testing.assert_allclose(batch, 3 * x + rows[:, None, None, None], rtol=1e-6)
    assert batch.dtype == jnp.float64  # that of x_t
    np.testing.assert_array_equal(bind(conditioned, 2.0, z[1], scale=3.0)(x[1], t), batch[1])
    mapped = jax.vmap(lambda x, z: bind(conditioned, 2.0, z, scale=3.0)(x, t))(x, z)
    np.testing.assert_array_equal(mapped, batch)
    # Codes and batches of codes
    codes = bind(conditioned, 2.0, z)(normal(2, 2, 6), t)
    code = bind(conditioned, 2.0, z[0])(normal(2, 2, 6)[0], t)
    np.testing.assert_array_equal(codes[0], code)


def test_bind_takes_a_module():
    class Network(nn.Module):
        def predict(self, x_t, t):
            return x_t * t[:, None, None, None]

    x = normal(0, *SHAPE)
    model = bind(Network().apply, {}, method="predict")
    np.testing.assert_array_equal(model(x, jnp.asarray(3)), 3 * x)


# Ancestral steps


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
    step = p_sample(DIFFUSION, output, x_t, t, noise)
    np.testing.assert_allclose(step, p.mean + jnp.sqrt(p.variance) * noise, atol=1e-13)
    last = p_sample(DIFFUSION, output, x_t, 0, jnp.full(SHAPE, jnp.inf))
    np.testing.assert_array_equal(last, p_mean_variance(DIFFUSION, output, x_t, 0).mean)


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


# The denoising loop


@pytest.mark.parametrize("respacing", ["25", "1"])
def test_denoising_returns_what_the_network_knows(respacing):
    diffusion = make_diffusion(500, respacing=respacing)
    tau = min(5, diffusion.num_timesteps)
    x, x_0 = normal(0, 2, *SHAPE), jnp.clip(normal(1, 2, *SHAPE), -1, 1)
    image = noise_and_denoise(diffusion, knowing(x_0, diffusion), x, normal(2, tau, 2, *SHAPE))
    np.testing.assert_allclose(image, x_0, atol=1e-12)


def expected_loop(x_t, noises, tau, pin=lambda x_t, t: x_t):
    """The loop in its plainest form; noises[i] follows the i-th step."""
    for i, t in enumerate(reversed(range(tau))):
        x_t = pin(x_t, t)
        p = p_mean_variance(DIFFUSION, smooth(x_t, DIFFUSION.timesteps[t]), x_t, t)
        x_t = p.mean
        if t > 0:
            x_t = x_t + jnp.exp(p.log_variance / 2) * noises[i]
    return x_t


def test_the_noises_are_used_in_order():
    x, noises = 0.3 * normal(0, *SHAPE), normal(1, 3, *SHAPE)
    expected = expected_loop(q_sample(DIFFUSION, x, 2, noises[0]), noises[1:], 3)
    for remat in (False, True):
        image = noise_and_denoise(DIFFUSION, smooth, x, noises, remat)
        np.testing.assert_allclose(image, expected, atol=1e-13)


def test_a_depth_that_is_known_at_run_time():
    x_t, noises = 0.3 * normal(0, *SHAPE), normal(1, 3, *SHAPE)

    @jax.jit
    def denoise(x_t, tau):
        return p_sample_loop(DIFFUSION, smooth, x_t, tau, lambda t: noises[t])

    for tau in (1, 3):
        expected = expected_loop(x_t, noises[tau - 1 :: -1], tau)
        np.testing.assert_allclose(denoise(x_t, tau), expected, atol=1e-13)


def test_kept_pixels_are_pinned_at_every_level():
    x_t, original = normal(0, *SHAPE), 0.5 * normal(1, *SHAPE)
    noises, of_original = normal(2, 3, *SHAPE), normal(3, 3, *SHAPE)
    mask = (normal(4, 4, 4, 1) < 0).astype(float)

    def pin(x_t, t):
        return jnp.where(mask == 1, q_sample(DIFFUSION, original, t, of_original[t]), x_t)

    expected = jnp.where(mask == 1, original, expected_loop(x_t, noises, 3, pin))
    keep = Keep(mask, original, lambda t: of_original[t])
    image = p_sample_loop(DIFFUSION, smooth, x_t, 3, lambda t: noises[2 - t], keep)
    np.testing.assert_allclose(image, expected, atol=1e-13)


def test_gradient_of_f_tau():
    noises = 0.1 * normal(2, 4, *SHAPE)

    @jax.jit
    def value(x):
        return jnp.sum(jnp.sin(noise_and_denoise(DIFFUSION, smooth, x, noises, remat=True)))

    assert_gradient(value, 0.3 * normal(0, *SHAPE), normal(1, *SHAPE), rtol=1e-7)


@pytest.mark.parametrize("remat", [False, True])
def test_the_backward_pass_keeps_what_its_policy_names(remat):
    """Each step keeps its input alone, or what the two convolutions return besides."""
    process = make_diffusion(100, variance="fixed_small")

    def pullback(x):
        block, emb = ResBlock(64), jnp.zeros((1, 8), x.dtype)
        variables = block.init(jax.random.key(0), x, emb)

        def value(x):
            model = bind(lambda v, x, t: block.apply(v, x, emb), variables)
            noises = jnp.zeros((3, *x.shape), x.dtype)
            return noise_and_denoise(process, model, x, noises, remat).sum()

        return jax.vjp(value, x)[1]

    image = (1, 8, 8, 64)
    saved = jax.tree.leaves(jax.eval_shape(pullback, jax.ShapeDtypeStruct(image, jnp.float32)))
    assert [leaf.shape for leaf in saved].count((3, *image)) == (1 if remat else 3)


# DDIM


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
        model = gaussian(diffusion, 0.3)
        x_T = invert(diffusion, model, x)
        # Pixels of standard deviation 0.3 become standard normal ones.
        code_errors.append(float(jnp.abs(x_T - x / 0.3).max()))
        errors.append(float(jnp.abs(decode(diffusion, model, x_T) - x).max()))
    for found, bound in ((errors, 0.03), (code_errors, 0.2)):
        assert found[0] > found[1] > found[2]
        assert found[2] < bound, found


def test_ddim_loops_are_the_steps():
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


def test_gradient_of_decoding():
    diffusion = make_diffusion(1000, respacing="ddim5")
    x_T = normal(0, *SHAPE)

    @jax.jit
    def value(code):
        def model(x_t, t):
            return 0.8 * x_t + 0.2 * jnp.sin(code + 0.001 * t)

        return jnp.sum(jnp.cos(decode(diffusion, model, x_T, remat=True)))

    assert_gradient(value, jnp.zeros(SHAPE), normal(1, *SHAPE), rtol=1e-6)
