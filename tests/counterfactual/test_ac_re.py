"""AC-RE: the original's PGD, and the three functions of one image."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffcf_jax.counterfactual.ac_re import ACRE, ACREMethod
from diffcf_jax.counterfactual.signed_steps import pgd_update
from diffcf_jax.counterfactual.types import Query
from diffcf_jax.diffusion.schedule import make_diffusion

SIZE = 12
DIFFUSION = make_diffusion(500, respacing="25")
PARAMS = {"generator": {"mean": 0.1}, "regressor": {"weight": 1.2}}


def denoiser(variables, x_t, t):
    """The noise in images of independent N(mean, 0.5^2) pixels."""
    a = jnp.asarray(np.cumprod(1 - make_diffusion(500).betas), x_t.dtype)[t][:, None, None, None]
    centred = x_t - jnp.sqrt(a) * variables["mean"]
    eps = jnp.sqrt(1 - a) * centred / (0.25 * a + 1 - a)
    return jnp.concatenate([eps, -jnp.ones_like(eps)], axis=-1)


def regressor(variables, images):
    """A weighted mean of the upper half's red channel."""
    return variables["weight"] * images[:, : SIZE // 2, :, 0].mean((1, 2))


OPTIONS = ACRE(tau=3, solver="pgd", iterations=30, step_size=4 / 255, threshold=0.01, dilation=3)
METHOD = ACREMethod(OPTIONS, DIFFUSION, denoiser, regressor)
INIT, STEP, FINISH = (jax.jit(f) for f in (METHOD.init, METHOD.step, METHOD.finish))


def image(seed):
    values = jax.random.uniform(jax.random.key(seed), (SIZE, SIZE, 3), minval=0.2, maxval=0.8)
    return jnp.asarray(np.round(np.asarray(values) * 255).astype(np.float32) / np.float32(255))


def start(seed=0, shift=0.15, key=7):
    x = image(seed)
    target = regressor(PARAMS["regressor"], x[None])[0] + shift
    return INIT(PARAMS, Query.of(x, target), jax.random.key(key))


def target_of(state):
    return state.query.accept[0]


def equal(a, b):
    def values(leaf):
        is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        return jax.random.key_data(leaf) if is_key else leaf

    leaves = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.array_equal(values(x), values(y), equal_nan=True) for x, y in leaves)


def run(state, calls=60):
    for _ in range(calls):
        state = FINISH(PARAMS, STEP(PARAMS, state))
        if state.done:
            return state
    raise AssertionError("not done")


def test_pgd_update():
    x_adv = jnp.array([0.5, 0.5, 0.5, 0.01, 0.99])
    gradient = jnp.array([3.0, -1e-9, 0.0, 1.0, -1.0])
    np.testing.assert_allclose(pgd_update(x_adv, gradient, 0.1), [0.4, 0.6, 0.5, 0, 1], atol=1e-7)


@pytest.mark.parametrize("masked", [False, True])
def test_attack_gradient_equals_finite_differences(masked):
    with jax.enable_x64(True):
        x, x_adv = (jnp.asarray(image(seed), jnp.float64) for seed in (0, 1))
        keep = jnp.zeros((SIZE, SIZE, 1))
        if masked:
            keep = keep.at[:3].set(1)
        noises, direction = jnp.split(
            jax.random.normal(jax.random.key(0), (4, SIZE, SIZE, 3), jnp.float64), [3]
        )

        @jax.jit
        def attack(x_adv):
            return METHOD.attack_gradient(PARAMS, x_adv, Query.of(x, 0.9), 0.1 * noises, keep)

        value, y, gradient = attack(x_adv)
        np.testing.assert_allclose(value, (y - 0.9) ** 2, rtol=1e-12)
        h = 1e-6 * direction[0]
        numerical = (attack(x_adv + h)[0] - attack(x_adv - h)[0]) / 2e-6
        np.testing.assert_allclose(jnp.vdot(gradient, direction[0]), numerical, rtol=1e-7)
        # The regressor reads the upper half, and there the input where it is kept.
        rows = np.flatnonzero(jnp.abs(gradient).max((1, 2)))
        assert rows.tolist() == list(range(3 if masked else 0, SIZE // 2))


def test_init():
    state = start()
    assert state.result.curve.shape == (30,) and np.isnan(state.result.curve).all()
    assert not state.stopped and not state.done and state.iteration == 0
    np.testing.assert_array_equal(state.result.image, state.query.image)
    np.testing.assert_allclose(state.result.y_initial, target_of(state) - 0.15, rtol=1e-6)
    # The reconstruction is a sample of F_tau(x): like the input, but not the input.
    difference = jnp.abs(state.result.reconstruction - state.query.image).mean()
    assert 0.001 < difference < 0.2


def test_late_images_are_refined_whatever_f_tau_reads():
    state, looks = start(shift=9.0), []  # no image reads that
    while not state.done:
        state = STEP(PARAMS, state)
        if state.stopped:
            looks.append(int(state.iteration))
        state = FINISH(PARAMS, state)
    assert looks == list(range(23, 31))  # the last quarter of 30
    assert not state.result.success and state.best_miss < 9


def test_an_image_reaches_its_target_as_it_is_saved():
    state = run(start())
    result = state.result
    assert result.success and 1 < state.iteration <= 30
    saved = np.round(np.asarray(result.image) * 255).astype(np.uint8)
    read = saved.astype(np.float32) / np.float32(255)
    np.testing.assert_array_equal(result.image, read)
    y = regressor(PARAMS["regressor"], jnp.asarray(read)[None])[0]
    np.testing.assert_allclose(y, result.y_final, rtol=1e-6)
    assert abs(y - target_of(state)) <= OPTIONS.threshold
    # Where the mask is 1, the input has stayed.
    assert 0 < result.mask.mean() < 1
    np.testing.assert_array_equal(result.mask * result.image, result.mask * state.query.image)
    # A value for every iteration, and none after
    done = int(result.iterations)
    assert done == state.iteration
    assert np.isfinite(result.curve[:done]).all() and np.isnan(result.curve[done:]).all()
    np.testing.assert_allclose(result.curve[0], result.y_initial, atol=0.1)


def test_an_unreachable_target_ends_without_success():
    state = run(start(shift=5.0))
    assert state.iteration == 30 and not state.result.success
    assert state.result.y_final > state.result.y_initial + 0.1
    assert np.isfinite(state.result.curve).all()


def test_finish_refuses_an_image_that_misses():
    state = start(shift=0.15)
    assert equal(FINISH(PARAMS, state), state)
    stepped = STEP(PARAMS, state)
    missing = stepped.replace(stopped=jnp.ones((), bool), x_adv=image(1))
    judged = FINISH(PARAMS, missing)
    assert abs(target_of(state) - judged.result.y_final) > OPTIONS.threshold
    assert not judged.stopped and not judged.done and not judged.result.success
    # PGD read more or less than the refined image shows, and aims as much higher or lower.
    sampled, refined = judged.drift
    assert sampled == stepped.result.curve[0] and refined == judged.result.y_final
    # The same with no iteration left
    late = FINISH(PARAMS, missing.replace(iteration=jnp.asarray(30)))
    assert late.stopped and late.done and not late.result.success


def test_a_stopped_or_finished_image_passes_through_unchanged():
    state = start().replace(stopped=jnp.ones((), bool))
    assert equal(STEP(PARAMS, state), state)
    done = run(start())
    assert equal(STEP(PARAMS, done), done)
    assert equal(FINISH(PARAMS, done), done)


def test_the_key_decides():
    states = [STEP(PARAMS, start(key=key)) for key in (7, 7, 8)]
    assert equal(states[0], states[1])
    assert states[0].result.curve[0] != states[2].result.curve[0]
    # Every iteration has noise of its own.
    frozen = states[0].replace(x_adv=states[0].query.image)
    assert STEP(PARAMS, frozen).result.curve[1] != frozen.result.curve[0]


def test_the_batch_does_not_matter():
    states = [start(seed, key=seed) for seed in range(3)]
    step, finish = (jax.jit(jax.vmap(f, (None, 0))) for f in (METHOD.step, METHOD.finish))
    batched = []
    for group in (states[:1], states):
        batch = jax.tree.map(lambda *leaves: jnp.stack(leaves), *group)
        for _ in range(8):
            batch = finish(PARAMS, step(PARAMS, batch))
        batched.append(jax.tree.map(lambda leaf: leaf[0], batch))
    alone, together = (state.result for state in batched)
    np.testing.assert_allclose(alone.image, together.image, atol=1e-6)
    np.testing.assert_allclose(alone.curve, together.curve, atol=1e-6)
    assert alone.iterations == together.iterations and alone.success == together.success
