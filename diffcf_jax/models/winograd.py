"""3x3 convolutions with 2.25 times fewer multiplications, for CPUs (Lavin and Gray, 2016).

Two neighbouring outputs of a convolution with three weights g in one dimension read four inputs d.
Six multiplications become four, of sums and differences (their F(2, 3), eq. 5):

    m_0 = (d_0 - d_2) g_0                   m_1 = (d_1 + d_2) (g_0 + g_1 + g_2) / 2
    m_2 = (d_2 - d_1) (g_0 - g_1 + g_2) / 2 m_3 = (d_1 - d_3) g_2
    y_0 = m_0 + m_1 + m_2                   y_1 = m_1 - m_2 - m_3

In two dimensions (eq. 8) each 2x2 outputs take 16 products instead of 36; over all pixels and
channels they are 16 matrix products. Results differ from a plain convolution's by rounding: the
largest factors are 1 and 1/2. https://arxiv.org/abs/1509.09308
"""

import jax
import jax.numpy as jnp

Array = jax.Array

# Flipping the weights swaps the first and the last of the four and keeps the other two.
_FLIPPED = (3, 1, 2, 0)
_MIN_CHANNELS = 48  # below, the sums cost what the products save


def fits(x: Array, kernel: Array) -> bool:
    """Whether a convolution of x [B, H, W, C] with kernel [h, w, C, D] is faster this way.

    It depends on the shape of one image alone, so that a result does not depend on the batch.
    """
    _, h, w, _ = x.shape
    return (
        kernel.shape[:2] == (3, 3)
        and h % 2 == w % 2 == 0
        and min(kernel.shape[2:]) >= _MIN_CHANNELS
        and jnp.finfo(x.dtype).bits >= 32
    )


def transform_kernel(kernel: Array) -> tuple[Array, ...]:
    """Sums of a kernel's weights, by rows and columns: [3, 3, C, D] -> four of [4, C, D]."""

    def sums(g: Array) -> tuple[Array, ...]:
        return g[0], (g[0] + g[1] + g[2]) / 2, (g[0] - g[1] + g[2]) / 2, g[2]

    return tuple(jnp.stack(sums(row)) for row in sums(kernel))


def convolve(x: Array, transformed: tuple[Array, ...], flip: bool = False) -> Array:
    """Convolves x [B, H, W, C] with a kernel in the form of `transform_kernel`.

    Args:
        x: images with even H and W; their margin is zero.
        transformed: the kernel.
        flip: with the kernel flipped in both directions and its channels exchanged, which is
            the gradient of the convolution in its input.

    Returns:
        [B, H, W, D]; with `flip` [B, H, W, C] from x [B, H, W, D].
    """
    b, h, w, c = x.shape
    order = _FLIPPED if flip else range(4)
    product = "tnd,tcd->tnc" if flip else "tnc,tcd->tnd"
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    rows = _differences(x, 1)
    outputs = []
    for i in range(4):
        # One product of four matrices each: of all 16 at once, the copies cost more.
        columns = _differences(rows[i], 2)
        tiles = jnp.stack([columns[j].reshape(-1, c) for j in order])
        products = jnp.einsum(product, tiles, transformed[order[i]])
        products = products.reshape(4, b, h // 2, w // 2, -1)
        outputs.append(_outputs([products[j] for j in order]))
    left, right = (_outputs(list(column)) for column in zip(*outputs, strict=True))
    y = jnp.stack([jnp.stack(pair, axis=3) for pair in zip(left, right, strict=True)], axis=2)
    return y.reshape(b, h, w, -1)


def _differences(x: Array, axis: int) -> tuple[Array, ...]:
    """The four sums of inputs for each two outputs along an axis with a margin of 1."""
    pairs = x.reshape(*x.shape[:axis], -1, 2, *x.shape[axis + 1 :])
    even, odd = (jax.lax.index_in_dim(pairs, i, axis + 1, keepdims=False) for i in (0, 1))
    n = even.shape[axis] - 1
    d0, d2 = (jax.lax.slice_in_dim(even, i, i + n, axis=axis) for i in (0, 1))
    d1, d3 = (jax.lax.slice_in_dim(odd, i, i + n, axis=axis) for i in (0, 1))
    return d0 - d2, d1 + d2, d2 - d1, d1 - d3


def _outputs(m: list[Array]) -> tuple[Array, Array]:
    return m[0] + m[1] + m[2], m[1] - m[2] - m[3]
