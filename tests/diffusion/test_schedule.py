"""Schedules and respacing: published constants, identities, recorded vectors."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffcf_jax.diffusion.schedule import (
    cosine_betas,
    linear_betas,
    make_diffusion,
    predict_eps,
    predict_x_start,
    q_posterior_mean,
    q_sample,
    respace,
    respaced_timesteps,
    training_target,
)
from diffcf_jax.errors import UserError

# Made by running the original: 25 of 500 timesteps (CelebA-HQ), indices 0 to 4
CELEBAHQ = {
    "betas": [0.0002, 0.0223847580, 0.0562373223, 0.0841866343, 0.1191396608],
    "alphas_cumprod": [0.9998, 0.9774197190, 0.9224522512, 0.8447941008, 0.7441456182],
    "sqrt_alphas_cumprod": [0.99989999, 0.98864540, 0.96044378, 0.91912681, 0.86263875],
    "sqrt_one_minus_alphas_cumprod": [0.01414214, 0.15026737, 0.27847396, 0.39396180, 0.50582050],
    "posterior_log_variance_clipped": [-8.525890, -8.525890, -4.111991, -3.168578, -2.627315],
    "log_betas": [-8.517193, -3.799375, -2.878175, -2.474719, -2.127459],
    "posterior_mean_coef1": [1, 0.99124184, 0.71696175, 0.52096299, 0.42799524],
    "posterior_mean_coef2": [0, 0.00875759, 0.28287303, 0.47815033, 0.56933632],
}
# 50 of 1000 timesteps (squares)
SQUARES = {
    "betas": [0.0001, 0.0061651879, 0.0149603937, 0.0222784227, 0.0317295238],
    "alphas_cumprod": [0.9999, 0.9937354286, 0.9788687553, 0.9570611035, 0.9266940104],
}


@pytest.mark.parametrize(
    ("steps", "respacing", "constants"), [(500, "25", CELEBAHQ), (1000, "50", SQUARES)]
)
def test_published_constants(steps, respacing, constants):
    diffusion = make_diffusion(steps, respacing=respacing)
    for name, values in constants.items():
        np.testing.assert_allclose(getattr(diffusion, name)[:5], values, atol=6e-9, rtol=5e-7)


def test_betas():
    np.testing.assert_allclose(linear_betas(500)[[0, -1]], [2e-4, 0.04], rtol=1e-15)
    np.testing.assert_allclose(linear_betas(1000)[[0, -1]], [1e-4, 0.02], rtol=1e-15)
    betas = cosine_betas(100)
    u = (np.arange(1, 100) / 100 + 0.008) / 1.008 * np.pi / 2
    expected = np.cos(u) ** 2 / np.cos(0.008 / 1.008 * np.pi / 2) ** 2
    np.testing.assert_allclose(np.cumprod(1 - betas)[:99], expected, rtol=1e-10)
    assert betas.max() == 0.999


def test_respaced_timesteps():
    celebahq = [0, 21, 42, 62, 83, 104, 125, 146, 166, 187, 208, 229, 249, 270, 291, 312, 333]
    celebahq += [353, 374, 395, 416, 437, 457, 478, 499]
    assert respaced_timesteps(500, "25") == celebahq
    assert respaced_timesteps(1000, "50")[:5] == [0, 20, 41, 61, 82]
    assert respaced_timesteps(7, "") == list(range(7))
    for count, stride in ((8, 125), (10, 100), (20, 50), (250, 4)):
        assert respaced_timesteps(1000, f"ddim{count}") == list(range(0, 1000, stride))
    # Sections of 100, each with both of its ends
    sections = respaced_timesteps(300, "10,15,20")
    assert len(sections) == 45
    assert [t for t in sections if t in (0, 99, 100, 199, 200, 299)] == [0, 99, 100, 199, 200, 299]
    assert respaced_timesteps(10, "1,1") == [0, 5]


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 200), st.integers(2, 200))
def test_a_section_keeps_its_ends(steps, count):
    if count > steps:
        with pytest.raises(UserError, match="cannot be respaced"):
            respaced_timesteps(steps, str(count))
        return
    kept = respaced_timesteps(steps, str(count))
    assert len(kept) == count and kept[0] == 0 and kept[-1] == steps - 1
    assert np.ptp(np.diff(kept)) <= 1


def test_respacing_keeps_the_noise_levels():
    whole = make_diffusion(1000)
    for respacing in ("50", "ddim20", "10,20,30"):
        diffusion = make_diffusion(1000, respacing=respacing)
        np.testing.assert_allclose(
            diffusion.alphas_cumprod, whole.alphas_cumprod[diffusion.timesteps], rtol=1e-12
        )


def test_posterior_is_consistent_with_the_forward_process():
    # q(x_(t-1) | x_0) is the average of q(x_(t-1) | x_t, x_0) over q(x_t | x_0).
    for schedule in ("linear", "cosine"):
        d = make_diffusion(200, schedule, "40")
        mean = d.posterior_mean_coef1 + d.posterior_mean_coef2 * d.sqrt_alphas_cumprod
        np.testing.assert_allclose(mean, np.sqrt(d.alphas_cumprod_prev), rtol=1e-9)
        variance = d.posterior_variance + d.posterior_mean_coef2**2 * (1 - d.alphas_cumprod)
        np.testing.assert_allclose(variance, 1 - d.alphas_cumprod_prev, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("predict", ["eps", "x_start", "v"])
def test_predictions_invert_q_sample(predict):
    with jax.enable_x64(True):
        diffusion = make_diffusion(1000, respacing="ddim10", predict=predict)
        x_0, noise = jax.random.normal(jax.random.key(0), (2, 10, 4, 4, 3), jnp.float64)
        t = jnp.arange(10)
        x_t = q_sample(diffusion, x_0, t, noise)
        target = training_target(diffusion, x_0, t, noise)
        np.testing.assert_allclose(predict_x_start(diffusion, x_t, t, target), x_0, atol=1e-12)
        np.testing.assert_allclose(predict_eps(diffusion, x_t, t, x_0), noise, atol=1e-12)
        # One index for all is the same as one for each.
        np.testing.assert_array_equal(q_sample(diffusion, x_0[3], 3, noise[3]), x_t[3])
        assert (q_posterior_mean(diffusion, x_0, x_t, t)[0] == x_0[0]).all()


def test_the_network_sees_the_original_timesteps():
    t = jnp.arange(5)
    assert make_diffusion(500, respacing="25").model_t(t).tolist() == [0, 21, 42, 62, 83]
    rescaled = make_diffusion(500, respacing="25", rescale_timesteps=True).model_t(t)
    assert rescaled.dtype == jnp.float32
    assert rescaled.tolist() == [0, 42, 84, 124, 166]


def test_constant_betas_of_the_latent_dpm():
    np.testing.assert_allclose(make_diffusion(1000, "const0.008").betas, 0.008, rtol=1e-12)
    np.testing.assert_allclose(make_diffusion(500, "const0.008").betas, 0.016, rtol=1e-12)


def test_respacing_later_is_respacing_at_once():
    full = make_diffusion(500, variance="fixed_small", predict="v", rescale_timesteps=True)
    later, once = respace(full, "25"), make_diffusion(500, "linear", "25", "v", "fixed_small", True)
    np.testing.assert_allclose(later.betas, once.betas, rtol=1e-12)
    np.testing.assert_array_equal(later.timesteps, once.timesteps)
    assert (later.variance, later.predict, later.rescale_timesteps) == ("fixed_small", "v", True)


@pytest.mark.parametrize(
    "options",
    [
        {"schedule": "quadratic"},
        {"schedule": "const2"},
        {"predict": "mean"},
        {"variance": "learned"},
        {"respacing": "ddim300"},
        {"respacing": "2000"},
    ],
)
def test_errors_name_the_value(options):
    with pytest.raises(UserError, match=next(iter(options.values())).removeprefix("ddim")):
        make_diffusion(1000, **options)


def test_a_linear_schedule_has_no_beta_of_1():
    assert make_diffusion(21).betas.max() < 1
    with pytest.raises(UserError, match="more than 20 steps, not 20"):
        make_diffusion(20)


def test_the_constants_of_a_single_step_are_complete():
    diffusion = make_diffusion(1000, respacing="1")
    constants = [getattr(diffusion, field.name) for field in dataclasses.fields(diffusion)]
    arrays = [value for value in constants if isinstance(value, np.ndarray)]
    assert len(arrays) == 15 and all(np.isfinite(value).all() for value in arrays)
    assert {value.shape for value in arrays} == {(1,)}
    np.testing.assert_allclose(diffusion.posterior_log_variance_clipped, np.log(diffusion.betas))


def test_schedules_with_their_own_betas():
    linear, scaled = (
        make_diffusion(50, f"{name}0.01,0.04") for name in ("linear", "scaled_linear")
    )
    np.testing.assert_allclose(linear.betas[[0, 7, -1]], [0.01, 0.01 + 0.03 / 7, 0.04], rtol=1e-12)
    roots = np.sqrt(scaled.betas)
    np.testing.assert_allclose(np.diff(roots), 0.1 / 49, rtol=1e-10)
    same = make_diffusion(1000, "linear0.0001,0.02")
    np.testing.assert_array_equal(same.betas, make_diffusion(1000, "linear").betas)
    for name in (
        "linear0.1",
        "linear0.1,2",
        "scaled_linear0,0.1",
        "const0.1,0.2",
        "linear1,-",
        "x",
    ):
        with pytest.raises(UserError, match=f"Unknown diffusion schedule '{name}'; choose linear"):
            make_diffusion(1000, name)
