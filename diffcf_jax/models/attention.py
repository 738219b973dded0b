"""Attention whose gradient keeps no N x N weights."""

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

from diffcf_jax.models import cpu
from diffcf_jax.models.cpu.attention import backward_in_blocks, forward_in_blocks
from diffcf_jax.models.remat import ATTENTION

Queries = Float[Array, "b heads n d"]


@jax.custom_vjp
def attention(q: Queries, k: Queries, v: Queries) -> Queries:
    """Attends: `softmax(q k^T) v`, with logits and sums in float32 at least.

    The gradient computes the weights again from the logarithm of their sums (Dao et al., 2022,
    algorithm 4).

    Args:
        q: queries, scaled.
        k: keys, scaled.
        v: values; their dtype is that of the result.
    """
    return _forward(q, k, v)[0]


def _forward(q: Array, k: Array, v: Array) -> tuple[Array, tuple[Array, ...]]:
    by_blocks = cpu.in_use()
    out, log_sums = forward_in_blocks(_weigh, q, k, v) if by_blocks else _weigh(q, k, v)
    # So that a checkpoint may keep what it takes two products to get.
    out, log_sums = (checkpoint_name(a, ATTENTION) for a in (out, log_sums))
    return out, (q, k, v, out, log_sums)


def _backward(saved: tuple[Array, ...], d_out: Array) -> tuple[Array, Array, Array]:
    q, k, v, out, log_sums = saved
    # sum_k w_k dw_k for every query
    shift = jnp.sum((d_out * out).astype(log_sums.dtype), axis=-1, keepdims=True)
    arrays = (q, k, v, d_out, log_sums, shift)
    by_blocks = cpu.in_use()
    dq, dk, dv = backward_in_blocks(_gradients, *arrays) if by_blocks else _gradients(*arrays)
    return dq.astype(q.dtype), dk.astype(k.dtype), dv.astype(v.dtype)


attention.defvjp(_forward, _backward)


def _product(equation: str, a: Array, b: Array) -> Array:
    dtype = jnp.promote_types(a.dtype, jnp.float32)
    return jnp.einsum(equation, a, b, preferred_element_type=dtype)


def _weigh(q: Array, k: Array, v: Array) -> tuple[Array, Array]:
    """Some queries and all keys: the result [..., Q, D], and log sum_k exp(logits) [..., Q, 1]."""
    logits = _product("...qd,...kd->...qk", q, k)
    top = jnp.max(logits, axis=-1, keepdims=True)
    weights = jnp.exp(logits - top)
    sums = jnp.sum(weights, axis=-1, keepdims=True)
    out = _product("...qk,...kd->...qd", weights.astype(v.dtype), v) / sums
    return out.astype(v.dtype), top + jnp.log(sums)


def _gradients(
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
