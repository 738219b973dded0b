"""The closed forms on functions whose solution is known, and the search against an optimiser."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from diffcf_jax.counterfactual import level_set

Z_0 = jnp.asarray([1.0, -0.5, 0.3, 0.8])
WEIGHTS = jnp.asarray([0.5, -1.0, 2.0, 0.25])
CURVED = jnp.asarray(np.random.default_rng(0).normal(size=(4, 4)))


def linear(z):
    return WEIGHTS @ z


def quadratic(z):
    return WEIGHTS @ z + 0.2 * z @ CURVED @ z


def distance(z):
    return jnp.linalg.norm(z - Z_0 + 1e-12)


def search(y, target, iterations, threshold=1e-4, pixel=False):
    """Yields the points of a search with the distance |z - z_0|.

    `pixel`: one gradient an iteration, the prediction's or the distance's.
    """
    z, state = Z_0, level_set.start(Z_0)
    for _ in range(iterations):
        yield z
        value, gradient = jax.value_and_grad(y)(z)
        slope = jax.grad(distance)(z)
        met = jnp.abs(target - value) <= threshold
        sloped = (state.known | met) & ~state.sloped if pixel else jnp.ones((), bool)
        fresh = ~sloped if pixel else jnp.ones((), bool)
        gradient = jnp.where(fresh, gradient, jnp.nan)
        slope = jnp.where(sloped, slope, jnp.nan)
        z, state, _ = level_set.move(
            state, z, Z_0, value, target - value, gradient, fresh, slope, sloped, met
        )


@pytest.mark.parametrize("miss", [0.3, -0.2, 0.0])
def test_newton_meets_a_linear_target_by_the_shortest_step(miss):
    step = level_set.newton_step(WEIGHTS, jnp.float32(miss), jnp.float32(10))
    np.testing.assert_allclose(linear(Z_0 + step) - linear(Z_0), miss, atol=1e-6)
    shortest = np.linalg.lstsq(np.asarray(WEIGHTS)[None], [miss], rcond=None)[0]
    np.testing.assert_allclose(step, shortest, atol=1e-6)


def test_a_step_is_bounded_and_a_flat_function_moves_nothing():
    step = level_set.newton_step(1e-12 * WEIGHTS, jnp.float32(1), jnp.float32(0.5))
    np.testing.assert_allclose(jnp.linalg.norm(step), 0.5, rtol=1e-5)
    assert not level_set.newton_step(0 * WEIGHTS, jnp.float32(1), jnp.float32(0.5)).any()
    np.testing.assert_array_equal(level_set.tangent(Z_0, 0 * WEIGHTS), Z_0)


def test_a_tangent_does_not_change_the_prediction():
    along = level_set.tangent(Z_0, WEIGHTS)
    np.testing.assert_allclose(linear(along), 0, atol=1e-6)
    np.testing.assert_allclose(level_set.tangent(along, WEIGHTS), along, atol=1e-6)
    np.testing.assert_allclose(Z_0 - along, linear(Z_0) * WEIGHTS / (WEIGHTS @ WEIGHTS), atol=1e-6)


def test_a_secant_explains_what_was_seen():
    step, guess = jnp.asarray([0.1, 0.2, -0.3, 0.0]), jnp.ones(4)
    found = level_set.secant_gradient(guess, step, linear(step))
    np.testing.assert_allclose(found @ step, linear(step), rtol=1e-5)
    # Across the step the guess stays.
    across = level_set.tangent(jnp.asarray([1.0, 0, 0, 1]), step)
    np.testing.assert_allclose(found @ across, guess @ across, rtol=1e-5)
    np.testing.assert_array_equal(level_set.secant_gradient(guess, 0 * step, 0.0), guess)


def test_a_linear_target_is_met_by_the_second_point():
    target = float(linear(Z_0)) + 0.5
    points = list(search(linear, target, 2))
    np.testing.assert_allclose(linear(points[1]), target, atol=1e-6)


@pytest.mark.parametrize("pixel", [False, True])
def test_a_search_finds_the_nearest_point_of_the_level_set(pixel):
    target = float(quadratic(Z_0)) + 1.0
    nearest = scipy.optimize.minimize(
        lambda z: np.sum((z - np.asarray(Z_0, np.float64)) ** 2),
        np.asarray(Z_0, np.float64),
        jac=lambda z: 2 * (z - np.asarray(Z_0, np.float64)),
        constraints={
            "type": "eq",
            "fun": lambda z: np.float64(quadratic(jnp.asarray(z))) - target,
            "jac": lambda z: np.asarray(jax.grad(quadratic)(jnp.asarray(z)), np.float64),
        },
        tol=1e-10,
    )
    points = list(search(quadratic, target, 12, threshold=0.05, pixel=pixel))
    last = min(points[6:], key=lambda z: abs(float(quadratic(z)) - target))
    np.testing.assert_allclose(quadratic(last), target, atol=1e-3)
    shortest = np.linalg.norm(nearest.x - np.asarray(Z_0))
    np.testing.assert_allclose(distance(last), shortest, rtol=0.01)


def test_a_step_past_a_bend_is_taken_back():
    """From Z_0 the linear model lies: its step goes to where the function is far too high."""

    def bent(z):
        return linear(z) + 8 * jax.nn.relu(linear(z) - linear(Z_0) - 0.5)

    target = float(linear(Z_0)) + 1.0
    values = [float(bent(z)) for z in search(bent, target, 12)]
    assert values[1] > target + 2
    assert abs(values[2] - target) < abs(values[1] - target)
    np.testing.assert_allclose(values[-1], target, atol=1e-3)


def test_progress_stalls_where_nothing_comes_closer():
    progress = level_set.Progress.start()
    for miss in (1.0, 0.5, 0.2):
        progress = progress.after(jnp.float32(miss))
        assert not progress.stalled(1)
    for number in range(1, 4):
        progress = progress.after(jnp.float32(-0.199))  # less than a hundredth of the way come
        assert progress.stalled(number) and not progress.stalled(number + 1)
    assert not progress.after(jnp.float32(0.15)).stalled(1)
    # Near the target a half of what is left counts.
    near = level_set.Progress.start().after(jnp.float32(100.0)).after(jnp.float32(0.01))
    assert not near.after(jnp.float32(0.004)).stalled(1)
