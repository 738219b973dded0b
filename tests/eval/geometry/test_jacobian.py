import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eval.geometry.jacobian import effective_rank, spectrum

N, D = 40, 30
VALUES = np.r_[np.geomspace(8, 0.5, 6), np.full(D - 6, 1e-3)]


def orthonormal(rows, columns, seed):
    found, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(columns, rows)))
    return found.T


LEFT, RIGHT = orthonormal(D, N, 0), orthonormal(D, D, 1)
MATRIX = jnp.asarray((LEFT.T * VALUES) @ RIGHT, jnp.float32)


def linear(matrix, z):
    return (matrix @ z).reshape(4, 10)


@jax.custom_vjp
def sine(x):  # as the layers do that bring their own backward pass, and so have no JVP
    return jnp.sin(x)


sine.defvjp(lambda x: (jnp.sin(x), x), lambda x, g: (g * jnp.cos(x),))


def curved(args, z):
    return jnp.concatenate([z, sine(2 * z)])


@pytest.mark.parametrize("count", [3, D])
def test_the_whole_spectrum_of_a_linear_generator(count):
    found = spectrum(linear, MATRIX, jnp.ones(D), count, jax.random.key(0))
    assert found.exact
    np.testing.assert_allclose(found.values, VALUES[:count], rtol=1e-4, atol=1e-5)
    rebuilt = (found.left.T * found.values) @ found.right
    np.testing.assert_allclose(rebuilt, np.asarray(MATRIX), atol=1.1 * VALUES[count - 1])


def test_a_sketch_finds_the_leading_values():
    # Of a code so large that the sketch is the cheaper way.
    wide = jnp.concatenate([MATRIX, jnp.zeros((N, 70))], 1)
    found = spectrum(linear, wide, jnp.ones(D + 70), 6, jax.random.key(0))
    assert not found.exact and found.left.shape == (6, N)
    np.testing.assert_allclose(found.values, VALUES[:6], rtol=1e-4)
    np.testing.assert_allclose(np.abs(found.left @ LEFT[:6].T), np.eye(6), atol=1e-3)
    np.testing.assert_allclose(np.abs(found.right[:, :D] @ RIGHT[:6].T), np.eye(6), atol=1e-3)


def test_the_jacobian_is_that_of_the_point():
    z = jnp.asarray([0.0, 0.3, 2.0])
    found = spectrum(curved, None, z, 3, jax.random.key(0))
    slopes = 2 * np.cos(2 * np.asarray(z))
    np.testing.assert_allclose(found.values, np.sort(np.sqrt(1 + slopes**2))[::-1], rtol=1e-5)


def test_effective_rank():
    assert effective_rank(np.ones(5)) == pytest.approx(5)
    assert effective_rank(np.asarray([3.0, 0, 0])) == pytest.approx(1)
    assert effective_rank(np.asarray([1.0, 1, 1e-3])) == pytest.approx(2, rel=1e-4)


def test_small_values_are_left_out():
    found = spectrum(linear, MATRIX, jnp.ones(D), D, jax.random.key(0)).above(0.01)
    assert len(found.values) == len(found.left) == len(found.right) == 6
