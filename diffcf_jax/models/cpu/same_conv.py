"""The convolution that keeps the resolution, with gradients that are fast on CPUs."""

import functools

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

from diffcf_jax.models.remat import KERNEL


@jax.custom_vjp
def same_conv(x: Float[Array, "b h w c"], kernel: Float[Array, "i j c d"]) -> Array:
    """Convolves with stride 1 and zeros around the image, so that the resolution stays.

    Its gradient in x is the same convolution with the kernel flipped and transposed in memory.
    JAX's own leaves the transposition to the convolution; XLA's CPU compiler has a fast program
    for that outside of loops only, and inside the loops of a diffusion chain one three times
    slower. `checkpoint_step` lets a loop flip its kernels once. The gradient in the kernel is one
    large product instead of a convolution with a kernel as large as the image.

    Args:
        x: the input.
        kernel: with odd i and j.

    Returns:
        [b, h, w, d].
    """
    if kernel.shape[:2] == (1, 1):
        return x @ kernel[0, 0]  # XLA's CPU compiler gives such a convolution one core
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    flipped = checkpoint_name(kernel[::-1, ::-1].transpose(0, 1, 3, 2), KERNEL)
    return same_conv(x, kernel), (x, flipped)


def _backward(saved: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    x, flipped = saved
    rows, columns = flipped.shape[:2]
    return same_conv(gradient, flipped), _kernel_gradient(x, gradient, rows, columns)


same_conv.defvjp(_forward, _backward)


@functools.partial(jax.jit, static_argnums=(2, 3))  # traced once for all layers of a shape
def _kernel_gradient(x: Array, gradient: Array, rows: int, columns: int) -> Array:
    """One product over all pixels; x is shifted by the kernel's rows, the gradient by its columns.

    Shifting each in one direction needs fewer copies than shifting one of them in both.
    """
    _, h, w, _ = x.shape
    padded = jnp.pad(x, ((0, 0), (rows // 2, rows // 2), (0, 0), (0, 0)))
    gradient = jnp.pad(gradient, ((0, 0), (0, 0), (columns // 2, columns // 2), (0, 0)))
    shifted = jnp.stack([padded[:, i : i + h] for i in range(rows)], axis=3)  # [b, h, w, i, c]
    gradient = jnp.stack([gradient[:, :, j : j + w] for j in reversed(range(columns))], axis=3)
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    product = jnp.einsum("bhwic,bhwjd->ijcd", shifted, gradient, preferred_element_type=dtype)
    return product.astype(x.dtype)
