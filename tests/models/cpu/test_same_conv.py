"""Convolutions: the values of JAX's own, and the program that their gradients make of a loop."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffcf_jax.models.cpu.same_conv import same_conv
from diffcf_jax.models.remat import checkpoint_step


def normal(seed, *shape):
    return np.asarray(jax.random.normal(jax.random.key(seed), shape))


@pytest.mark.parametrize("size", [(1, 1), (3, 3), (5, 3)])
def test_the_convolution_is_that_of_jax(size):
    x, kernel, weights = normal(0, 2, 6, 5, 4), normal(1, *size, 4, 7), normal(2, 2, 6, 5, 7)

    def plain(x, kernel):
        dims = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=dims)

    def loss(conv, x, kernel):
        y = conv(x, kernel)
        return jnp.sum(weights * jnp.sin(y)), y

    # A kernel of one pixel is a product, which rounds otherwise; the others are the same program.
    rtol, atol = (1e-5, 1e-6) if size == (1, 1) else (0, 0)
    gradient = jax.jit(jax.grad(loss, (1, 2), has_aux=True), static_argnums=0)
    (found, y), (expected, exact) = (gradient(conv, x, kernel) for conv in (same_conv, plain))
    np.testing.assert_allclose(y, exact, rtol=rtol, atol=atol)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=3e-5)


def test_no_convolution_of_a_gradient_in_a_loop_is_transposed():
    """XLA's CPU compiler has no fast program for such ones inside of loops."""
    kernel, x = jnp.asarray(normal(0, 3, 3, 8, 8)), jnp.ones((1, 8, 8, 8))

    def loss(x):
        loop = jax.lax.scan(lambda x, _: (jnp.sin(same_conv(x, kernel)), None), x, None, length=3)
        return jnp.sum(loop[0])

    program = jax.jit(jax.grad(loss)).lower(x).compile().as_text()
    assert set(re.findall(r"dim_labels=([^ ,]+)", program)) == {"b01f_01io->b01f"}


@pytest.mark.parametrize("remat", [False, True])
def test_kernels_are_flipped_outside_of_the_loop(remat):
    kernel, x = jnp.asarray(normal(0, 3, 3, 4, 4)), jnp.ones((1, 8, 8, 4))

    def loss(x):
        step = checkpoint_step(lambda x, _: (jnp.sin(same_conv(x, kernel)), None), remat)
        return jnp.sum(jax.lax.scan(step, x, None, length=3)[0])

    outside = jax.make_jaxpr(jax.grad(loss))(x).jaxpr.eqns
    loops = [eqn for eqn in outside if eqn.primitive.name == "scan"]
    assert " rev[" not in " ".join(str(eqn) for eqn in loops)
    assert " rev[" in str(outside)
