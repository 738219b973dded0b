"""Winograd's convolution against the plain one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffcf_jax.diffusion.remat import checkpoint_step, without_gradient
from diffcf_jax.models.cpu import winograd
from diffcf_jax.models.cpu.same_conv import same_conv

SIZE = st.integers(1, 4)


def plain(x, kernel):
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def normal(seed, *shape, dtype=jnp.float32):
    return jax.random.normal(jax.random.key(seed), shape, dtype)


@settings(max_examples=20, deadline=None)
@given(st.sampled_from([2, 4]), SIZE, SIZE, SIZE, SIZE, SIZE)
def test_equals_the_plain_convolution_and_its_gradient(m, b, h, w, c, d):
    with jax.enable_x64(True):
        x = normal(0, b, m * h, m * w, c, dtype=jnp.float64)
        kernel = normal(1, 3, 3, c, d, dtype=jnp.float64)
        y, gradient = jax.vjp(lambda x: plain(x, kernel), x)
        transformed = winograd.transform_kernel(kernel, m)
        np.testing.assert_allclose(winograd.convolve(x, transformed), y, atol=1e-12)
        found = winograd.convolve(y, transformed, flip=True)
        np.testing.assert_allclose(found, gradient(y)[0], rtol=1e-12, atol=1e-11)


@pytest.mark.parametrize("m", [2, 4])
def test_rounds_about_as_much(m):
    x, kernel = normal(0, 2, 8, 8, 256), normal(1, 3, 3, 256, 16)
    with jax.enable_x64(True):
        exact = np.asarray(plain(jnp.asarray(x, jnp.float64), jnp.asarray(kernel, jnp.float64)))
    found = winograd.convolve(x, winograd.transform_kernel(kernel, m))
    errors = [np.sqrt(np.mean(np.square(np.asarray(y) - exact))) for y in (found, plain(x, kernel))]
    assert errors[0] < 3 * errors[1]


@pytest.mark.parametrize("vmapped", [False, True])
@pytest.mark.parametrize("m, height, width", [(2, 4, 6), (4, 24, 28)])
def test_a_convolution_of_many_channels_and_its_gradients(m, height, width, vmapped):
    x, kernel = normal(0, 2, height, width, 128), normal(1, 3, 3, 128, 130) / 34
    weights = normal(2, 130)
    assert winograd.outputs_at_a_time(x, kernel) == m

    def loss(conv, x, kernel):
        y = jax.vmap(lambda x: conv(x[None], kernel)[0])(x) if vmapped else conv(x, kernel)
        return 24 * jnp.sum(weights * jnp.sin(y)) / (height * width)  # gradients of one size

    found, expected = (
        jax.jit(jax.value_and_grad(lambda x, k, conv=conv: loss(conv, x, k), (0, 1)))(x, kernel)
        for conv in (same_conv, plain)
    )
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=min(1e-4, 1e-5 * float(jnp.abs(b).max())))


@pytest.mark.parametrize("shape, kernel, dtype", [
    ((1, 8, 8, 128), (1, 1, 128, 128), "float32"),
    ((1, 8, 7, 128), (3, 3, 128, 128), "float32"),
    ((1, 8, 8, 32), (3, 3, 32, 128), "float32"),
    ((1, 8, 8, 128), (3, 3, 128, 128), "bfloat16"),
])  # fmt: skip
def test_other_convolutions_are_plain(shape, kernel, dtype):
    assert winograd.outputs_at_a_time(jnp.ones(shape, dtype), jnp.ones(kernel, dtype)) == 0


@pytest.mark.parametrize("platform, convolutions", [("cpu", False), ("tpu", True), ("cuda", True)])
def test_only_a_cpu_does_it(platform, convolutions):
    x, kernel = jnp.ones((1, 4, 4, 128)), jnp.ones((3, 3, 128, 128))
    gradient = jax.jit(jax.grad(lambda x: jnp.sin(same_conv(x, kernel)).sum()))
    program = gradient.trace(x).lower(lowering_platforms=(platform,)).as_text()
    assert ("stablehlo.convolution" in program) == convolutions
    assert ("stablehlo.dot_general" in program) != convolutions


def of_chain(x, kernel, remat, length=3):
    step = checkpoint_step(lambda x, _: (jnp.sin(same_conv(x, kernel)), None), remat)
    return jax.lax.scan(step, x, None, length)[0]


@pytest.mark.parametrize("asked", ["gradient", "gradient, remat", "value"])
def test_a_loop_gets_transformed_kernels_from_outside(asked):
    kernel, x = normal(0, 3, 3, 128, 128), jnp.ones((1, 4, 4, 128))

    def chain(x):
        return of_chain(x, kernel, remat=asked != "gradient")

    def function(x):
        if asked == "value":
            return without_gradient(chain, x)
        return jax.grad(lambda x: jnp.sum(chain(x)))(x)

    outside = jax.make_jaxpr(function)(x).jaxpr.eqns
    loops = " ".join(str(eqn) for eqn in outside if eqn.primitive.name == "scan")
    row_of_kernel = "[1,3,128,128]"
    assert row_of_kernel not in loops
    assert row_of_kernel in str(outside)
    assert "stablehlo.convolution" not in jax.jit(function).lower(x).as_text()


@pytest.mark.parametrize("remat", [False, True])
def test_a_chain_without_gradient(remat):
    kernel, x = normal(0, 3, 3, 128, 128) / 34, normal(1, 4, 1, 8, 8, 128)

    def found(x):
        return without_gradient(lambda x: of_chain(x, kernel, remat, 50), x)

    def expected(x):
        return jax.lax.fori_loop(0, 50, lambda _, x: jnp.sin(plain(x, kernel)), x)

    program = jax.jit(jax.vmap(found)).lower(x).compile()
    np.testing.assert_allclose(program(x), jax.vmap(expected)(x), atol=1e-4)
    # Nothing of any step is kept for the backward pass that is dropped.
    assert program.memory_analysis().temp_size_in_bytes < 25 * x.nbytes + 2 * kernel.nbytes
