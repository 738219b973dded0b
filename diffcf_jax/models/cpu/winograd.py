"""3x3 convolutions with 2.25 or 4 times fewer multiplications, for CPUs (Lavin and Gray, 2016).

Neighbouring outputs of a convolution share inputs. In one dimension, two outputs with three weights
g read four inputs d; their six multiplications become four, of sums (F(2, 3), eq. 5):

    m_0 = (d_0 - d_2) g_0                   m_1 = (d_1 + d_2) (g_0 + g_1 + g_2) / 2
    m_2 = (d_2 - d_1) (g_0 - g_1 + g_2) / 2 m_3 = (d_1 - d_3) g_2
    y_0 = m_0 + m_1 + m_2                   y_1 = m_1 - m_2 - m_3

In two dimensions (eq. 8) each 2x2 outputs take 16 products instead of 36; over all pixels and
channels they are 16 matrix products. Four outputs at a time (F(4, 3)) take 36 products for 4x4
outputs instead of 144. It multiplies the polynomials of weights and inputs at the points 0,
+-sqrt(2), +-1 / sqrt(2) and infinity, and is scaled so that flipped weights have the same sums in
another order. Results differ from a plain convolution's by rounding; the errors of F(4, 3) are
about twice the plain one's. https://arxiv.org/abs/1509.09308
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from diffcf_jax.models.cpu.materialize import materialize

Array = jax.Array

_ROOT = math.sqrt(2)
_MIN_CHANNELS = 48  # below, the sums cost what the products save


@dataclasses.dataclass(frozen=True)
class _Algorithm:
    """F(m, 3) in one dimension.

    Attributes:
        of_weights: three weights -> m + 2 sums.
        of_inputs: m + 2 inputs -> m + 2 sums.
        outputs: the m + 2 products -> m outputs.
        flipped: where the sums of the weights in reverse order are among those of the weights.
    """

    of_weights: Callable[[Array], tuple[Array, ...]]
    of_inputs: Callable[[Sequence[Array]], tuple[Array, ...]]
    outputs: Callable[[Sequence[Array]], tuple[Array, ...]]
    flipped: tuple[int, ...]


def _two() -> _Algorithm:
    def of_weights(g: Array) -> tuple[Array, ...]:
        return g[0], (g[0] + g[1] + g[2]) / 2, (g[0] - g[1] + g[2]) / 2, g[2]

    def of_inputs(d: Sequence[Array]) -> tuple[Array, ...]:
        return d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]

    def outputs(m: Sequence[Array]) -> tuple[Array, ...]:
        return m[0] + m[1] + m[2], m[1] - m[2] - m[3]

    return _Algorithm(of_weights, of_inputs, outputs, (3, 1, 2, 0))


def _four() -> _Algorithm:
    def of_weights(g: Array) -> tuple[Array, ...]:
        outer, inner, odd = (g[0] + 2 * g[2]) / 3, (2 * g[0] + g[2]) / 3, g[1] * (_ROOT / 3)
        return g[0], outer + odd, outer - odd, inner + odd, inner - odd, g[2]

    def of_inputs(d: Sequence[Array]) -> tuple[Array, ...]:
        outer, outer_odd = d[4] / 2 - d[2] / 4, (d[3] - d[1] / 2) / _ROOT
        inner, inner_odd = 2 * d[2] - d[4], (2 * d[1] - d[3]) / _ROOT
        return (
            d[0] - 2.5 * d[2] + d[4],
            outer + outer_odd,
            outer - outer_odd,
            inner + inner_odd,
            inner - inner_odd,
            d[1] - 2.5 * d[3] + d[5],
        )

    def outputs(m: Sequence[Array]) -> tuple[Array, ...]:
        outer, outer_odd = m[1] + m[2], _ROOT * (m[1] - m[2])
        inner, inner_odd = m[3] + m[4], (m[3] - m[4]) / _ROOT
        return (
            m[0] + outer + inner,
            outer_odd + inner_odd,
            2 * outer + inner / 2,
            2 * outer_odd + inner_odd / 2 + m[5],
        )

    return _Algorithm(of_weights, of_inputs, outputs, (5, 3, 4, 1, 2, 0))


_ALGORITHMS = {2: _two(), 4: _four()}


def outputs_at_a_time(x: Array, kernel: Array) -> int:
    """Which m of F(m, 3) makes a convolution of x [B, H, W, C] with kernel [h, w, C, D] fastest.

    It depends on the shape of one image alone, so that a result does not depend on the batch.

    Returns:
        4; or 2, for few pixels of many channels, whose kernel would take too much memory; or 0
        where a plain convolution is as fast.
    """
    _, h, w, _ = x.shape
    fewest, most = min(kernel.shape[2:]), max(kernel.shape[2:])
    if kernel.shape[:2] != (3, 3) or fewest < _MIN_CHANNELS or jnp.finfo(x.dtype).bits < 32:
        return 0
    if h % 4 == w % 4 == 0 and h * w >= 4 * most:
        return 4
    return 2 if h % 2 == w % 2 == 0 else 0


@functools.partial(jax.jit, static_argnames="m")
def transform_kernel(kernel: Array, m: int) -> tuple[Array, ...]:
    """Sums of a kernel's weights, by rows and columns: [3, 3, C, D] -> m + 2 of [m + 2, C, D]."""
    sums = _ALGORITHMS[m].of_weights
    return tuple(jnp.stack(sums(row)) for row in sums(kernel))


def convolve(x: Array, transformed: tuple[Array, ...], flip: bool = False) -> Array:
    """Convolves x [B, H, W, C] with a kernel in the form of `transform_kernel`.

    Args:
        x: images with H and W multiples of m; their margin is zero.
        transformed: the kernel.
        flip: with the kernel flipped in both directions and its channels exchanged, which is
            the gradient of the convolution in its input.

    Returns:
        [B, H, W, D]; with `flip` [B, H, W, C] from x [B, H, W, D].
    """
    b, h, w, c = x.shape
    m = len(transformed) - 2
    algorithm = _ALGORITHMS[m]
    order = algorithm.flipped if flip else range(m + 2)
    product = "tnd,tcd->tnc" if flip else "tnc,tcd->tnd"
    x = jnp.pad(x, ((0, 0), (1, m - 1), (1, m - 1), (0, 0)))
    rows = algorithm.of_inputs(_neighbours(x, m, 1))
    # XLA would compute sums anew for each of the values that they are part of.
    compute_once = jax.lax.optimization_barrier
    found = []
    for i in range(m + 2):
        # One product of m + 2 matrices each: of all of them at once, the copies cost more.
        columns = algorithm.of_inputs(_neighbours(rows[i], m, 2))
        tiles = jnp.stack([columns[j].reshape(-1, c) for j in order])
        products = jnp.einsum(product, tiles, transformed[order[i]])
        products = products.reshape(m + 2, b, h // m, w // m, -1)
        outputs = algorithm.outputs([products[j] for j in order])
        found.append(compute_once(jnp.stack(outputs, axis=3)))
    y = jnp.stack(algorithm.outputs(found), axis=2)
    return materialize(y.reshape(b, h, w, -1))


def _neighbours(x: Array, m: int, axis: int) -> list[Array]:
    """The m + 2 inputs of each m outputs along an axis, with margins of 1 and m - 1 at its ends."""
    groups = x.reshape(*x.shape[:axis], -1, m, *x.shape[axis + 1 :])
    n = groups.shape[axis] - 1

    def one(i: int) -> Array:
        every = jax.lax.index_in_dim(groups, i % m, axis + 1, keepdims=False)
        return jax.lax.slice_in_dim(every, i // m, i // m + n, axis=axis)

    return [one(i) for i in range(m + 2)]
