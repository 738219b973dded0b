"""Attention head by head and by blocks of queries, whose weights stay in a CPU's caches."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

Array = jax.Array
Function = Callable[..., tuple[Array, ...]]

_BLOCK = 512  # queries at a time


def forward_in_blocks(forward: Function, q: Array, k: Array, v: Array) -> tuple[Array, ...]:
    """Returns `forward(q, k, v)`: the result and log sum_k exp(logits), one block at a time."""

    def head(q: Array, k: Array, v: Array) -> tuple[Array, Array]:
        parts = jax.lax.map(lambda q: forward(q, k, v), _split(q))
        return tuple(map(_join, parts))

    return _each_head(head, q, k, v)


def backward_in_blocks(
    backward: Function, q: Array, k: Array, v: Array, *rest: Array
) -> tuple[Array, ...]:
    """Returns `backward(q, k, v, *rest)`: the gradients in q, k, v, one block at a time."""

    def head(q: Array, k: Array, v: Array, *rest: Array) -> tuple[Array, Array, Array]:
        def block(sums: tuple[Array, Array], part: tuple[Array, ...]):
            q, *rest = part
            dq, dk, dv = backward(q, k, v, *rest)
            return (sums[0] + dk, sums[1] + dv), dq

        dtype = jnp.promote_types(q.dtype, jnp.float32)
        zeros = (jnp.zeros(k.shape, dtype), jnp.zeros(v.shape, dtype))
        (dk, dv), dq = jax.lax.scan(block, zeros, tuple(map(_split, (q, *rest))))
        return _join(dq), dk, dv

    return _each_head(head, q, k, v, *rest)


def _each_head(head: Function, *arrays: Array) -> tuple[Array, ...]:
    """Maps over axis 1."""
    rows = tuple(jnp.moveaxis(a, 1, 0) for a in arrays)
    return tuple(jnp.moveaxis(a, 0, 1) for a in jax.lax.map(lambda row: head(*row), rows))


def _split(a: Array) -> Array:
    """[B, N, D] -> [blocks, B, block, D]; one block where N is small or does not divide."""
    b, n, d = a.shape
    block = _BLOCK if n % _BLOCK == 0 else n
    return jnp.moveaxis(a.reshape(b, n // block, block, d), 1, 0)


def _join(a: Array) -> Array:
    """Undoes `_split`."""
    a = jnp.moveaxis(a, 0, 1)
    return a.reshape(a.shape[0], -1, a.shape[-1])
