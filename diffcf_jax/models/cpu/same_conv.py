"""The convolution that keeps the resolution, with gradients that are fast on CPUs."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from diffcf_jax.models.cpu import winograd

Array = jax.Array


@jax.custom_vjp
def same_conv(x: Array, kernel: Array) -> Array:
    """Convolution with stride 1 that keeps the resolution: [B, H, W, C] -> [B, H, W, D].

    Its gradient in x is the same convolution with the kernel flipped and transposed in memory.
    JAX's own leaves the transposition to the convolution; XLA's CPU compiler has a fast program
    for that outside of loops only, and inside the loops of a diffusion chain one three times
    slower. Where it is differentiated on a CPU, convolutions of many channels are done by
    `models.cpu.winograd`, and the gradient in the kernel is one large product instead of a
    convolution with a kernel as large as the image. `diffusion.remat` lets a loop flip and
    transform its kernels once.

    Args:
        x: [B, H, W, C].
        kernel: [h, w, C, D] with odd h and w.
    """
    return _same_conv(x, kernel)


def _same_conv(x: Array, kernel: Array) -> Array:
    if kernel.shape[:2] == (1, 1):
        return x @ kernel[0, 0]  # XLA's CPU compiler gives such a convolution one core
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _same_conv_forward(x: Array, kernel: Array) -> tuple[Array, tuple[Any, ...]]:
    flipped = checkpoint_name(kernel[::-1, ::-1].transpose(0, 1, 3, 2), "kernel")
    transformed = None
    if m := winograd.outputs_at_a_time(x, kernel):
        transformed = checkpoint_name(winograd.transform_kernel(kernel, m), "kernel")
    y = _fast_conv(x, kernel, transformed, flip=False)
    return checkpoint_name(y, "product"), (x, kernel, flipped, transformed)


def _same_conv_backward(saved: tuple[Any, ...], gradient: Array) -> tuple[Array, Array]:
    x, kernel, flipped, transformed = saved
    kernel_gradient = jax.lax.platform_dependent(
        x, kernel, gradient, cpu=_kernel_gradient_by_product, default=_kernel_gradient
    )
    return _fast_conv(gradient, flipped, transformed, flip=True), kernel_gradient


@functools.partial(jax.jit, static_argnames="flip")  # traced once for all layers of a shape
def _fast_conv(x: Array, kernel: Array, transformed: Any, flip: bool) -> Array:
    if transformed is None:
        return _same_conv(x, kernel)
    return jax.lax.platform_dependent(
        x,
        kernel,
        transformed,
        cpu=lambda x, kernel, transformed: winograd.convolve(x, transformed, flip),
        default=lambda x, kernel, transformed: _same_conv(x, kernel),
    )


same_conv.defvjp(_same_conv_forward, _same_conv_backward)


def _kernel_gradient(x: Array, kernel: Array, gradient: Array) -> Array:
    _, in_kernel = jax.vjp(lambda kernel: _same_conv(x, kernel), kernel)
    return in_kernel(gradient)[0]


def _kernel_gradient_by_product(x: Array, kernel: Array, gradient: Array) -> Array:
    """One product over all pixels; x is shifted by the kernel's rows, the gradient by its columns.

    To shift each in one direction needs fewer copies than to shift one of them in both.
    """
    rows, columns, _, _ = kernel.shape
    _, h, w, _ = x.shape
    x = jnp.pad(x, ((0, 0), (rows // 2, rows // 2), (0, 0), (0, 0)))
    gradient = jnp.pad(gradient, ((0, 0), (0, 0), (columns // 2, columns // 2), (0, 0)))
    x = jnp.stack([x[:, i : i + h] for i in range(rows)], axis=3)  # [B, h, w, rows, C]
    gradient = jnp.stack([gradient[:, :, j : j + w] for j in reversed(range(columns))], axis=3)
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    product = jnp.einsum("bhwic,bhwjd->ijcd", x, gradient, preferred_element_type=dtype)
    return product.astype(kernel.dtype)
