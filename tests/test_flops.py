"""Operations are counted as on paper, loops and recomputation included."""

import jax
import jax.numpy as jnp
import pytest

from diffcf_jax.checkpoint.network import abstract_variables, build_module
from diffcf_jax.checkpoint.original_flags import PRESETS, describe_ddpm
from diffcf_jax.flops import count_flops

X = jax.ShapeDtypeStruct((2, 8, 8, 3), jnp.float32)
KERNEL = jax.ShapeDtypeStruct((3, 3, 3, 5), jnp.float32)
A = jax.ShapeDtypeStruct((4, 6), jnp.float32)
CONV = 2 * (2 * 8 * 8 * 5) * (3 * 3 * 3)


def conv(x, kernel):
    dims = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=dims)


def test_products_and_convolutions():
    assert count_flops(lambda a: a @ a.T, A) == 2 * 4 * 4 * 6
    assert count_flops(jax.vmap(lambda a: a @ a), jax.ShapeDtypeStruct((3, 5, 5), float)) == 750
    assert count_flops(conv, X, KERNEL) == CONV


def test_loops_and_branches():
    def loop(a):
        return jax.lax.scan(lambda a, _: (a @ a.T @ a, None), a, None, length=7)[0]

    assert count_flops(jax.jit(loop), A) == 7 * 2 * (2 * 4 * 4 * 6)

    def branch(a):
        return jax.lax.cond(a[0, 0] > 0, lambda a: a @ a.T @ a, lambda a: a, a)

    assert count_flops(branch, A) == 2 * (2 * 4 * 4 * 6)


def test_what_nothing_needs_does_not_count():
    def loss(x, kernel):
        return jnp.sum(jnp.square(conv(x, kernel)))

    assert count_flops(jax.grad(loss), X, KERNEL) == 2 * CONV
    assert count_flops(jax.grad(loss, argnums=(0, 1)), X, KERNEL) == 3 * CONV
    assert count_flops(lambda a: (a @ a.T, a)[1], A) == 0


def test_recomputation_counts():
    def loss(x, kernel):
        block = jax.checkpoint(lambda x: jnp.sin(conv(jnp.sin(x), kernel)))
        return jnp.sum(jnp.square(block(x)))

    assert count_flops(jax.grad(loss), X, KERNEL) == 3 * CONV


def test_the_original_network():
    """PyTorch's own counter finds 78 GFLOP in the forward pass."""
    description = describe_ddpm(PRESETS["ddpm", "square64"], {})
    x, t = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32), jax.ShapeDtypeStruct((1,), jnp.int32)
    module = build_module(description)
    flops = count_flops(module.apply, abstract_variables(description), x, t)
    assert flops == pytest.approx(78.2e9, rel=1e-3)
