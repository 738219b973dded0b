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


def search(y, target, iterations, threshold=1e-4, pixel=False, hold=None):
    """Yields the points of a search with the distance |z - z_0|.

    `pixel`: one gradient an iteration, the prediction's or the distance's. `hold`: a function of
    z whose values are to stay.
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
        held = (
            None if hold is None else level_set.Held.of(jax.jacobian(hold)(z), hold(Z_0) - hold(z))
        )
        z, state, _ = level_set.move(
            state, z, Z_0, value, target - value, gradient, fresh, slope, sloped, met, held
        )


def shortest_way(zero):
    """The distance from Z_0 to the nearest point where a vector-valued function is 0."""
    start = np.asarray(Z_0, np.float64)
    nearest = scipy.optimize.minimize(
        lambda z: np.sum((z - start) ** 2),
        start,
        jac=lambda z: 2 * (z - start),
        constraints={
            "type": "eq",
            "fun": lambda z: np.asarray(zero(jnp.asarray(z)), np.float64),
            "jac": lambda z: np.asarray(jax.jacobian(zero)(jnp.asarray(z)), np.float64),
        },
        tol=1e-10,
    )
    return np.sqrt(nearest.fun)


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
    points = list(search(quadratic, target, 12, threshold=0.05, pixel=pixel))
    last = min(points[6:], key=lambda z: abs(float(quadratic(z)) - target))
    np.testing.assert_allclose(quadratic(last), target, atol=1e-3)
    shortest = shortest_way(lambda z: quadratic(z)[None] - target)
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


def test_steps_stay_short_after_one_that_failed():
    yes, no, slope = jnp.ones((), bool), jnp.zeros((), bool), jnp.zeros(4)
    state, z = level_set.start(Z_0), Z_0
    sizes = []
    # Far from the target, closer, then far off: that step is taken back to a tenth of it, and with
    # hardly a gradient the next ones want to be as long as they may.
    for miss, flatness in ((1.0, 1.0), (0.9, 1.0), (5.0, 1.0), (0.8, 1e-3), (0.7, 1e-3)):
        onward, state, _ = level_set.move(
            state, z, Z_0, jnp.float32(1 - miss), jnp.float32(miss), flatness * WEIGHTS, yes,
            slope, no, no,
        )  # fmt: skip
        sizes.append(float(jnp.linalg.norm(onward - state.z)))
        z = onward
    cut = sizes[2]
    np.testing.assert_allclose(sizes[3:], [cut, 2 * cut], rtol=1e-5)


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


ROWS = jnp.asarray([[1.0, 0.5, -0.3, 0.0], [0.0, 1.0, 1.0, 2.0]])


def test_a_held_step_is_the_shortest_that_solves_all_equations():
    gaps, miss = jnp.asarray([0.2, -0.1]), 0.3
    held = level_set.Held.of(ROWS, gaps)
    start = level_set.start(Z_0)
    nothing, no = jnp.zeros(4), jnp.zeros((), bool)
    z, _, _ = level_set.move(
        start, Z_0, Z_0, linear(Z_0), miss, WEIGHTS, ~no, nothing, no, no, held
    )
    equations = np.concatenate([np.asarray(WEIGHTS)[None], ROWS])
    shortest = np.linalg.lstsq(equations, np.asarray([miss, *gaps]), rcond=None)[0]
    assert np.linalg.norm(shortest) < 0.25 * np.linalg.norm(Z_0)  # the step's bound
    np.testing.assert_allclose(z - Z_0, shortest, atol=1e-5)


def test_what_has_no_gradient_of_its_own_holds_nothing():
    vector = jnp.asarray([1.0, 2.0, 3.0, 4.0])
    alone = level_set.Held.of(ROWS[:1], jnp.zeros(1)).project(vector)
    np.testing.assert_allclose(ROWS[0] @ alone, 0, atol=1e-5)
    twice = jnp.stack([ROWS[0], 3 * ROWS[0], 0 * ROWS[0]])
    found = level_set.Held.of(twice, jnp.asarray([0.1, 0.3, 5.0]))
    np.testing.assert_allclose(found.project(vector), alone, atol=1e-5)
    np.testing.assert_allclose(ROWS[0] @ found.back, 0.1, atol=1e-5)


@pytest.mark.parametrize("pixel", [False, True])
def test_a_search_meets_its_target_while_other_numbers_stay(pixel):
    def hold(z):
        return jnp.stack([z[0] + 0.3 * z[1] ** 2, jnp.sin(z[3]) + 0.1 * z[2]])

    target = quadratic(Z_0) + 1.0
    free = list(search(quadratic, target, 30, pixel=pixel))[-1]
    found = list(search(quadratic, target, 60, pixel=pixel, hold=hold))[-1]
    np.testing.assert_allclose(quadratic(found), target, atol=1e-3)
    np.testing.assert_allclose(hold(found), hold(Z_0), atol=1e-3)
    assert np.abs(hold(free) - hold(Z_0)).max() > 0.05
    shortest = shortest_way(lambda z: jnp.append(hold(z) - hold(Z_0), quadratic(z) - target))
    np.testing.assert_allclose(distance(found), shortest, rtol=0.01)
