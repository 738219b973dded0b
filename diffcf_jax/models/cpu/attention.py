"""Attention whose gradient keeps no N x N weights."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

Array = jax.Array

# Queries that a CPU works on at a time: their weights stay in its caches.
_BLOCK = 512


@jax.custom_vjp
def attention(q: Array, k: Array, v: Array) -> Array:
    """Attends: `softmax(q k^T) v`, with logits and sums in float32 at least.

    The gradient computes the weights again from the logarithm of their sums (Dao et al., 2022,
    algorithm 4). On a CPU, heads and blocks of queries are worked on one after the other.

    Args:
        q: queries [B, heads, N, D], scaled.
        k: keys [B, heads, N, D], scaled.
        v: values [B, heads, N, D].

    Returns:
        [B, heads, N, D] in the dtype of v.
    """
    return _forward(q, k, v)[0]


def _forward(q: Array, k: Array, v: Array) -> tuple[Array, tuple[Array, ...]]:
    out, log_sums = jax.lax.platform_dependent(q, k, v, cpu=_forward_blocks, default=_forward_block)
    # So that a checkpoint may keep what it takes two products to get.
    out, log_sums = (checkpoint_name(a, "attention") for a in (out, log_sums))
    return out, (q, k, v, out, log_sums)


def _backward(saved: tuple[Array, ...], d_out: Array) -> tuple[Array, Array, Array]:
    q, k, v, out, log_sums = saved
    # sum_k w_k dw_k for every query
    shift = jnp.sum((d_out * out).astype(log_sums.dtype), axis=-1, keepdims=True)
    dq, dk, dv = jax.lax.platform_dependent(
        q, k, v, d_out, log_sums, shift, cpu=_backward_blocks, default=_backward_block
    )
    return dq.astype(q.dtype), dk.astype(k.dtype), dv.astype(v.dtype)


attention.defvjp(_forward, _backward)


def _product(equation: str, a: Array, b: Array) -> Array:
    dtype = jnp.promote_types(a.dtype, jnp.float32)
    return jnp.einsum(equation, a, b, preferred_element_type=dtype)


def _forward_block(q: Array, k: Array, v: Array) -> tuple[Array, Array]:
    """Some queries and all keys: the result [..., Q, D], and log sum_k exp(logits) [..., Q, 1]."""
    logits = _product("...qd,...kd->...qk", q, k)
    top = jnp.max(logits, axis=-1, keepdims=True)
    weights = jnp.exp(logits - top)
    sums = jnp.sum(weights, axis=-1, keepdims=True)
    out = _product("...qk,...kd->...qd", weights.astype(v.dtype), v) / sums
    return out.astype(v.dtype), top + jnp.log(sums)


def _backward_block(
    q: Array, k: Array, v: Array, d_out: Array, log_sums: Array, shift: Array
) -> tuple[Array, Array, Array]:
    """Gradients in some queries, and their shares of those in all keys and values."""
    weights = jnp.exp(_product("...qd,...kd->...qk", q, k) - log_sums)
    d_weights = _product("...qd,...kd->...qk", d_out, v)
    d_logits = (weights * (d_weights - shift)).astype(q.dtype)
    # XLA's CPU compiler is slow at products that sum over the rows of their first factor.
    transposed = (jnp.swapaxes(a, -1, -2) for a in (d_out, q))
    dv, dk = (
        jnp.swapaxes(_product("...dq,...qk->...dk", a, b), -1, -2)
        for a, b in zip(transposed, (weights.astype(v.dtype), d_logits), strict=True)
    )
    return _product("...qk,...kd->...qd", d_logits, k), dk, dv


def _forward_blocks(q: Array, k: Array, v: Array) -> tuple[Array, Array]:
    def head(q: Array, k: Array, v: Array) -> tuple[Array, Array]:
        parts = jax.lax.map(lambda q: _forward_block(q, k, v), _split(q))
        return tuple(map(_join, parts))

    return _each_head(head, q, k, v)


def _backward_blocks(q: Array, k: Array, v: Array, *rest: Array) -> tuple[Array, ...]:
    def head(q: Array, k: Array, v: Array, *rest: Array) -> tuple[Array, Array, Array]:
        def block(sums: tuple[Array, Array], part: tuple[Array, ...]):
            q, *rest = part
            dq, dk, dv = _backward_block(q, k, v, *rest)
            return (sums[0] + dk, sums[1] + dv), dq

        dtype = jnp.promote_types(q.dtype, jnp.float32)
        zeros = (jnp.zeros(k.shape, dtype), jnp.zeros(v.shape, dtype))
        (dk, dv), dq = jax.lax.scan(block, zeros, tuple(map(_split, (q, *rest))))
        return _join(dq), dk, dv

    return _each_head(head, q, k, v, *rest)


def _each_head(head: Callable[..., tuple[Array, ...]], *arrays: Array) -> tuple[Array, ...]:
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
