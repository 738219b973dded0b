"""Normalisations."""

import jax
import jax.numpy as jnp
import numpy as np

from diffcf_jax.errors import UserError
from diffcf_jax.regressors.onnx.channels import ChannelsLast, Value, channels_last
from diffcf_jax.regressors.onnx.model import Node
from diffcf_jax.regressors.onnx.table import Array, axis_of, operator


@operator("BatchNormalization")
def _batch_norm(
    node: Node, x: Value, scale: Array, bias: Array, mean: Array, variance: Array
) -> ChannelsLast:
    """Return scale (x - mean) / sqrt(variance + epsilon) + bias, with stored statistics."""
    if node.get("training_mode", 0) or len([name for name in node.outputs if name]) > 1:
        raise UserError(f"{node} is in training mode: call model.eval() before the export.")
    factor = scale * jax.lax.rsqrt(jnp.asarray(variance + np.float32(node.get("epsilon", 1e-5))))
    x = channels_last(x)
    return ChannelsLast((x * factor + (bias - mean * factor)).astype(x.dtype))


@operator("InstanceNormalization")
def _instance_norm(node: Node, x: Array, scale: Array, bias: Array) -> Array:
    shape = (1, -1, *(1,) * (x.ndim - 2))
    y, *_ = _standardise(x, tuple(range(2, x.ndim)), node.get("epsilon", 1e-5))
    return y * scale.reshape(shape) + bias.reshape(shape)


@operator("GroupNormalization")
def _group_norm(node: Node, x: Array, scale: Array, bias: Array) -> Array:
    """Over groups of channels; before opset 21 there is one scale per group."""
    groups, rest = node.get("num_groups"), (1,) * (x.ndim - 2)
    grouped = x.reshape(x.shape[0], groups, -1, *x.shape[2:])
    y, *_ = _standardise(grouped, tuple(range(2, grouped.ndim)), node.get("epsilon", 1e-5))
    per_group = scale.shape[0] == groups and node.opset < 21
    shape = (1, groups, 1, *rest) if per_group else (1, groups, x.shape[1] // groups, *rest)
    return (y * scale.reshape(shape) + bias.reshape(shape)).reshape(x.shape)


@operator("LayerNormalization")
def _layer_norm(
    node: Node, x: Array, scale: Array, bias: Array | None = None
) -> tuple[Array, Array, Array]:
    """Over all axes from one on; also returns mean and 1 / standard deviation."""
    axes = tuple(range(axis_of(node, node.get("axis", -1), x.ndim), x.ndim))
    y, mean, inverse = _standardise(x, axes, node.get("epsilon", 1e-5))
    y = y * scale
    return (y if bias is None else y + bias).astype(x.dtype), mean, inverse


@operator("RMSNormalization")
def _rms_norm(node: Node, x: Array, scale: Array) -> Array:
    axes = tuple(range(axis_of(node, node.get("axis", -1), x.ndim), x.ndim))
    wide = jnp.asarray(x, jnp.float32)
    square = jnp.square(wide).mean(axes, keepdims=True)
    y = wide * jax.lax.rsqrt(square + node.get("epsilon", 1e-5))
    return (y.astype(x.dtype) * scale).astype(x.dtype)


@operator("MeanVarianceNormalization")
def _mean_variance_norm(node: Node, x: Array) -> Array:
    axes = tuple(node.get("axes", [0, 2, 3]))
    x = jnp.asarray(x)
    deviation = jnp.sqrt(jnp.square(x - x.mean(axes, keepdims=True)).mean(axes, keepdims=True))
    return (x - x.mean(axes, keepdims=True)) / (deviation + 1e-9)


@operator("LpNormalization")
def _lp_norm(node: Node, x: Array) -> Array:
    """Return x / |x|_p along an axis; 0 where the norm is 0."""
    x, p = jnp.asarray(x), node.get("p", 2)
    axis = axis_of(node, node.get("axis", -1), x.ndim)
    power = (jnp.abs(x) if p == 1 else jnp.square(x)).sum(axis, keepdims=True)
    nothing = power == 0
    safe = jnp.where(nothing, 1, power)
    return jnp.where(nothing, 0, x / (safe if p == 1 else jnp.sqrt(safe)))


@operator("LRN")
def _local_response_norm(node: Node, x: Array) -> Array:
    """Return x / (bias + alpha / size * sum of squares of `size` neighbouring channels)^beta."""
    x, size = jnp.asarray(x), node.get("size")
    before = (size - 1) // 2
    padding = [(0, 0)] * x.ndim
    padding[1] = (before, size - 1 - before)
    window = (1, size, *(1,) * (x.ndim - 2))
    squares = jax.lax.reduce_window(
        jnp.square(x), np.zeros((), x.dtype)[()], jax.lax.add, window, (1,) * x.ndim, padding
    )
    power = node.get("bias", 1.0) + node.get("alpha", 1e-4) / size * squares
    return x / power ** node.get("beta", 0.75)


def _standardise(x: Array, axes: tuple[int, ...], epsilon: float) -> tuple[Array, Array, Array]:
    """(x - mean) / sqrt(variance + epsilon), the mean, and 1 / sqrt(...), at least float32."""
    wide = jnp.asarray(x, jnp.promote_types(x.dtype, jnp.float32))
    mean = wide.mean(axes, keepdims=True)
    centred = wide - mean
    inverse = jax.lax.rsqrt(jnp.square(centred).mean(axes, keepdims=True) + epsilon)
    return (centred * inverse).astype(x.dtype), mean, inverse
