"""The border of fused loops: it changes no value and no gradient, and makes its value once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffcf_jax.models.cpu.materialize import materialize


def normal(seed, *shape):
    return np.asarray(jax.random.normal(jax.random.key(seed), shape))


@pytest.mark.parametrize("shape", [(2, 4, 6, 3), (1, 7, 5, 1), (3, 7), (2, 1), (4,)])
def test_it_is_the_identity(shape):
    x, weights = normal(0, *shape), normal(1, *shape)

    def loss(x):
        y = materialize(x)
        return jnp.sum(weights * y), y

    gradient, y = jax.jit(jax.grad(loss, has_aux=True))(x)
    np.testing.assert_array_equal(y, x)
    np.testing.assert_array_equal(gradient, weights)
    rows = jax.jit(jax.vmap(materialize))(np.stack([x, 2 * x]))
    np.testing.assert_array_equal(rows, [x, 2 * x])


def test_a_value_that_two_loops_read_is_computed_once():
    def times_computed(end):
        def sums(x):
            y = end(3 * x + 1)
            return y[:, ::2] + 1, jnp.concatenate([y, 2 * y], axis=1)

        program = jax.jit(sums).lower(jnp.ones((4, 64))).compile().as_text()
        return program.count("constant(3)")

    assert times_computed(materialize) == 1 < times_computed(lambda x: x)
