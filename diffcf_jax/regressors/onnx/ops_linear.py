"""Matrix products and sums over axes."""

import jax
import jax.numpy as jnp
import numpy as np

from diffcf_jax.regressors.onnx.model import Node
from diffcf_jax.regressors.onnx.table import Array, axes_of, axis_of, integers, library, operator


@operator("MatMul")
def _matmul(node: Node, x: Array, y: Array) -> Array:
    return library(x, y).matmul(x, y)


@operator("Gemm")
def _gemm(node: Node, a: Array, b: Array, c: Array | None = None) -> Array:
    """Return alpha a b + beta c, each of a and b transposed if the node says so."""
    a = a.T if node.get("transA", 0) else a
    b = b.T if node.get("transB", 0) else b
    y = library(a, b).matmul(a, b)
    alpha, beta = node.get("alpha", 1.0), node.get("beta", 1.0)
    y = y if alpha == 1 else y * np.asarray(alpha, y.dtype)
    return y if c is None else y + (c if beta == 1 else c * np.asarray(beta, c.dtype))


@operator("Einsum")
def _einsum(node: Node, *inputs: Array) -> Array:
    return library(*inputs).einsum(node.get("equation").replace(" ", ""), *inputs)


@operator("CumSum")
def _cumulative_sum(node: Node, x: Array, axis: Array) -> Array:
    place = axis_of(node, integers(node, axis, "the axis")[0], x.ndim)
    xp = library(x)
    x = xp.flip(x, place) if node.get("reverse", 0) else x
    y = xp.cumsum(x, place, dtype=x.dtype)
    y = y - x if node.get("exclusive", 0) else y
    return xp.flip(y, place) if node.get("reverse", 0) else y


_REDUCTIONS = (
    "ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2",
    "ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp",
)  # fmt: skip


@operator(*_REDUCTIONS)
def _reduce(node: Node, x: Array, axes: Array | None = None) -> Array:
    """One number of all numbers along some axes; without axes of all, or of each alone."""
    chosen = axes_of(node, axes, x.ndim)
    if not chosen and node.get("noop_with_empty_axes", 0):
        chosen = ()
    elif not chosen:
        chosen = None
    xp, keep = library(x), bool(node.get("keepdims", 1))
    kind = node.op.removeprefix("Reduce")
    if kind == "LogSumExp" and xp is jnp:
        return jax.scipy.special.logsumexp(x, chosen, keepdims=keep)
    before = {"L1": xp.abs, "L2": xp.square, "SumSquare": xp.square, "LogSumExp": xp.exp}
    after = {"L2": xp.sqrt, "LogSum": xp.log, "LogSumExp": xp.log}
    reduce = {"Mean": xp.mean, "Max": xp.max, "Min": xp.min, "Prod": xp.prod}.get(kind, xp.sum)
    y = reduce(before.get(kind, lambda x: x)(x), axis=chosen, keepdims=keep)
    return after.get(kind, lambda x: x)(xp.asarray(y)).astype(x.dtype)
