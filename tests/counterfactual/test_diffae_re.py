"""Diff-AE-RE: the original's losses and trajectories, and the three functions of one image."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from diffcf_jax.counterfactual.diffae_re import DiffAERE, DiffAEREMethod
from diffcf_jax.counterfactual.types import Query, quantize
from diffcf_jax.diffusion.sampler import decode
from diffcf_jax.diffusion.schedule import make_diffusion

SIZE, CODES = 6, 4
PARAMS = {
    "generator": {"basis": jax.random.normal(jax.random.key(0), (CODES, SIZE, SIZE, 3)) / SIZE},
    "regressor": {},
}


def encode(variables, x):
    return jnp.einsum("bhwc,dhwc->bd", x, variables["basis"])


def predict(variables, x_t, t, z):
    """The noise if the image were a mixture of the code's patterns."""
    alphas_cumprod = np.cumprod(1 - make_diffusion(1000).betas)
    a = jnp.asarray(alphas_cumprod, x_t.dtype)[t][:, None, None, None]
    x_0 = 0.9 * jnp.tanh(jnp.einsum("bd,dhwc->bhwc", z, variables["basis"]))
    return (x_t - jnp.sqrt(a) * x_0) / jnp.sqrt(1 - a)


def regressor(variables, images):
    del variables
    return images[..., 0].mean((1, 2))


METHOD = DiffAEREMethod(
    DiffAERE(solver="adam", iterations=25, threshold=0.01),
    encode,
    predict,
    make_diffusion(1000, respacing="ddim20"),
    make_diffusion(1000, respacing="ddim5"),
    regressor,
    optax.adam(0.05),
)
STEP = jax.jit(METHOD.step)


def start(seed=0, shift=0.02, method=METHOD):
    x = jax.random.uniform(jax.random.key(seed), (SIZE, SIZE, 3))
    state = jax.jit(method.init)(PARAMS, Query.of(x, 0.0), jax.random.key(0))
    y_reconstruction = jax.jit(method.step)(PARAMS, state).result.y_reconstruction
    return state.replace(query=Query.of(x, y_reconstruction + shift))


def equal(a, b):
    leaves = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.array_equal(x, y, equal_nan=True) for x, y in leaves)


def run(state, step=STEP):
    states = [state]
    while not states[-1].stopped:
        states.append(step(PARAMS, states[-1]))
    return METHOD.finish(PARAMS, states[-1]), states


def test_init():
    state = start()
    np.testing.assert_allclose(
        state.z, encode(PARAMS["generator"], 2 * state.query.image[None] - 1)[0]
    )
    np.testing.assert_array_equal(state.z, state.z_0)
    result = state.result
    np.testing.assert_array_equal(result.image, result.reconstruction)
    np.testing.assert_allclose(
        result.y_initial, regressor({}, state.query.image[None])[0], rtol=1e-6
    )
    assert np.isnan(result.curve).all() and result.curve.shape == (25,)
    assert not result.mask.any() and not result.success


def test_the_first_step_reconstructs():
    state, states = run(start())
    reconstruction = quantize(METHOD.render(PARAMS, state.z_0, state.x_T))
    for later in (states[1], states[2], state):
        np.testing.assert_allclose(later.result.reconstruction, reconstruction, atol=1e-6)
        y = regressor({}, later.result.reconstruction[None])[0]
        np.testing.assert_allclose(later.result.y_reconstruction, y, rtol=1e-6)
    np.testing.assert_array_equal(states[1].result.image, states[1].result.reconstruction)
    assert not np.array_equal(state.result.image, state.result.reconstruction)


def test_an_image_reaches_its_target_as_it_is_saved():
    state, states = run(start())
    result = state.result
    assert state.done and result.success and 1 < state.iteration < 25
    saved = np.round(np.asarray(result.image) * 255).astype(np.uint8)
    read = saved.astype(np.float32) / np.float32(255)
    np.testing.assert_array_equal(result.image, read)
    assert abs(regressor({}, read[None])[0] - state.query.accept[0]) <= METHOD.options.threshold
    np.testing.assert_allclose(regressor({}, read[None])[0], result.y_final, rtol=1e-6)
    done = int(result.iterations)
    assert done == state.iteration == len(states) - 1
    assert np.isfinite(result.curve[:done]).all() and np.isnan(result.curve[done:]).all()
    np.testing.assert_allclose(result.curve[0], result.y_reconstruction, rtol=1e-6)
    # The image that meets the criterion is the one that is kept: no update follows.
    np.testing.assert_array_equal(states[-1].z, states[-2].z)
    kept = quantize(METHOD.render(PARAMS, state.z, state.x_T))
    np.testing.assert_array_equal(result.image, kept)


def test_an_unreachable_target_keeps_the_best_image():
    state, _ = run(start(shift=5.0))
    result = state.result
    assert state.done and not result.success and state.iteration == 25
    np.testing.assert_allclose(result.y_final, np.max(result.curve), rtol=1e-6)


def test_a_stopped_image_passes_through_unchanged():
    state = start().replace(stopped=jnp.ones((), bool))
    assert equal(STEP(PARAMS, state), state)
    done, _ = run(start())
    assert equal(STEP(PARAMS, done), done)
    assert equal(METHOD.finish(PARAMS, done), done)
    # Finishing accepts nothing that goes on.
    assert not METHOD.finish(PARAMS, start()).done


@pytest.mark.parametrize("space", ["latent", "pixel"])
@pytest.mark.parametrize("distance", ["l1", "l2"])
def test_gradient(distance, space):
    """Loss and gradient are those of the decoded image; nothing is rounded."""
    options = dataclasses.replace(
        METHOD.options, distance=distance, distance_space=space, distance_weight=0.01
    )
    method = dataclasses.replace(METHOD, options=options)
    state = start()
    state = state.replace(z=state.z + 0.1 * jnp.arange(1.0, CODES + 1))
    value, image, gradient = jax.jit(method.latent_gradient)(PARAMS, state)

    def decoded(z):
        def model(x_t, t):
            return predict(PARAMS["generator"], x_t[None], t[None], z[None])[0]

        return decode(method.decoding, model, state.x_T) / 2 + 0.5

    rendered, pullback = jax.vjp(decoded, state.z)
    np.testing.assert_allclose(image, rendered, atol=1e-6)
    y = regressor({}, image[None])[0]
    difference = state.z - state.z_0 if space == "latent" else image - state.query.image
    norm = jnp.abs(difference).sum() if distance == "l1" else jnp.linalg.norm(difference)
    of_difference = jnp.sign(difference) if distance == "l1" else difference / norm
    np.testing.assert_allclose(value, (y - state.query.accept[0]) ** 2 + 0.01 * norm, rtol=1e-5)
    of_image = jnp.zeros_like(image).at[..., 0].set(2 * (y - state.query.accept[0]) / SIZE**2)
    if space == "pixel":
        expected = pullback(of_image + 0.01 * of_difference)[0]
    else:
        expected = pullback(of_image)[0] + 0.01 * of_difference
    np.testing.assert_allclose(gradient, expected, atol=1e-6)


@pytest.mark.parametrize("optimizer", [optax.adam(0.05), optax.sgd(0.5, momentum=0.9)])
def test_the_optimiser_sees_one_image(optimizer):
    method = dataclasses.replace(METHOD, optimizer=optimizer)
    step, gradient = jax.jit(method.step), jax.jit(method.latent_gradient)
    state = start(shift=0.5, method=method)
    z, momentum, first, second = state.z, 0.0, 0.0, 0.0
    for i in range(1, 4):
        g = gradient(PARAMS, state)[2]
        first, second = 0.9 * first + 0.1 * g, 0.999 * second + 0.001 * g**2
        momentum = 0.9 * momentum + g
        if len(state.opt_state) == 2 and hasattr(state.opt_state[0], "mu"):
            corrected = jnp.sqrt(second / (1 - 0.999**i)) + 1e-8
            z = z - 0.05 * first / (1 - 0.9**i) / corrected
        else:
            z = z - 0.5 * momentum
        state = step(PARAMS, state)
        np.testing.assert_allclose(state.z, z, atol=1e-5)


def test_the_batch_does_not_matter():
    states = [start(seed) for seed in range(3)]
    step = jax.jit(jax.vmap(METHOD.step, (None, 0)))
    results = []
    for group in (states[:1], states):
        batch = jax.tree.map(lambda *leaves: jnp.stack(leaves), *group)
        for _ in range(6):
            batch = step(PARAMS, batch)
        results.append(jax.tree.map(lambda leaf: leaf[0], batch))
    for name in ("z", "iteration"):
        np.testing.assert_allclose(*(getattr(state, name) for state in results), atol=1e-5)
    np.testing.assert_allclose(*(state.result.curve for state in results), atol=2e-4)
