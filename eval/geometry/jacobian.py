"""The singular value decomposition of a generator's Jacobian J = d image / d z, matrix-free.

J is never differentiated entry by entry. J^T u is one backward derivative (VJP) through the whole
decoding, and J v one of that: J^T u is linear in u, and its transpose is J. Forward derivatives
(JVP) would give the same, but layers that bring a backward pass of their own have none.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array
# (args, z [D]) -> an image, of any shape with n values
Generate = Callable[[Any, Array], Array]

_BATCH = 16  # products at a time
_OVERSAMPLING = 10  # of the sketch (Halko et al., 2011, section 4.2)
_POWERS = 1


@dataclasses.dataclass(frozen=True)
class Spectrum:
    """The leading singular triples of J at a point, J ~ U diag(values) V^T.

    Attributes:
        values: [k], descending, in image units per unit of z.
        left: U^T [k, n]: orthonormal changes of the image.
        right: V^T [k, D]: the changes of z that cause them.
        exact: whether J was computed column by column; else `values` come from a random sketch.
    """

    values: np.ndarray
    left: np.ndarray
    right: np.ndarray
    exact: bool

    def above(self, share: float) -> "Spectrum":
        """Return the triples whose value is at least that share of the largest."""
        kept = self.values >= share * self.values[0]
        return Spectrum(self.values[kept], self.left[kept], self.right[kept], self.exact)


def effective_rank(values: np.ndarray) -> float:
    """The participation ratio (sum s^2)^2 / sum s^4: k for k equal values, 1 for a single one."""
    squares = np.square(values, dtype=np.float64)
    return float(squares.sum() ** 2 / np.square(squares).sum())


def spectrum(generate: Generate, args: Any, z: Array, count: int, key: Array) -> Spectrum:
    """Decompose the Jacobian of `generate(args, .)` at z.

    The whole J takes D products J v. Where that is more than a sketch needs, the leading
    values come from randomised subspace iteration (Halko et al., 2011, algorithm 5.1) with
    `count + 10` normal vectors, one power and float64 on the host.

    Args:
        generate: compiled once for all calls with the same function and shapes.
        args: what it needs besides z.
        z: [D].
        count: how many singular values; at least 1, no more than min(D, n) are returned.
        key: of the sketch.
    """
    width = count + _OVERSAMPLING
    exact = (2 * _POWERS + 2) * width >= len(z)
    if exact:
        columns = _push(generate, args, z, jnp.eye(len(z), dtype=z.dtype))  # J^T [D, n]
        right, values, left = _svd(columns)
        right = right.T
    else:
        columns = _push(generate, args, z, jax.random.normal(key, (width, len(z)), z.dtype))
        for _ in range(_POWERS):
            rows = _pull(generate, args, z, _orthonormal(columns))
            columns = _push(generate, args, z, _orthonormal(rows))
        basis = _orthonormal(columns)  # [width, n], nearly contains the leading left vectors
        inner, values, right = _svd(_pull(generate, args, z, basis))
        left = inner.T @ np.asarray(basis, np.float64)
    return Spectrum(values[:count], left[:count], right[:count], exact)


def _svd(matrix: Array) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return np.linalg.svd(np.asarray(matrix, np.float64), full_matrices=False)


def _orthonormal(rows: Array) -> Array:
    """An orthonormal basis of the span of rows, as rows."""
    basis, _ = np.linalg.qr(np.asarray(rows, np.float64).T)
    return jnp.asarray(basis.T, rows.dtype)


@functools.partial(jax.jit, static_argnums=0)
def _push(generate: Generate, args: Any, z: Array, vectors: Array) -> Array:
    """J v for each row v [m, D], as rows [m, n]."""
    image, vjp = jax.vjp(lambda z: generate(args, z).ravel(), z)
    _, transposed = jax.vjp(lambda u: vjp(u)[0], jnp.zeros_like(image))
    return jax.lax.map(lambda v: transposed(v)[0], vectors, batch_size=_BATCH)


@functools.partial(jax.jit, static_argnums=0)
def _pull(generate: Generate, args: Any, z: Array, rows: Array) -> Array:
    """J^T u for each row u [m, n], as rows [m, D]."""
    _, vjp = jax.vjp(lambda z: generate(args, z).ravel(), z)
    return jax.lax.map(lambda row: vjp(row)[0], rows, batch_size=_BATCH)
