"""Distances and their gradients, also where they have a corner."""

import jax
import jax.numpy as jnp
import numpy as np

from diffcf_jax.counterfactual.losses import DISTANCES, l1, l2


def test_values():
    difference = jnp.array([[3.0, 0.0], [0.0, -4.0]])
    assert l1(difference) == 7 and l2(difference) == 5
    assert sorted(DISTANCES) == ["l1", "l2"]


def test_gradients_vanish_at_zero():
    for distance in (l1, l2):
        for f in (jax.grad(distance), jax.jit(jax.grad(distance)), jax.vmap(jax.grad(distance))):
            np.testing.assert_array_equal(f(jnp.zeros((3, 4))), 0)
        assert distance(jnp.zeros(3)) == 0
    # L1 has one corner a coordinate.
    np.testing.assert_array_equal(jax.grad(l1)(jnp.array([2.0, 0.0, -0.5])), [1, 0, -1])


def test_gradients_equal_finite_differences():
    with jax.enable_x64(True):
        x, direction = jax.random.normal(jax.random.key(0), (2, 5), jnp.float64)
        for distance in (l1, l2):
            h = 1e-6
            numerical = (distance(x + h * direction) - distance(x - h * direction)) / (2 * h)
            analytic = jnp.vdot(jax.grad(distance)(x), direction)
            np.testing.assert_allclose(analytic, numerical, rtol=1e-8)
