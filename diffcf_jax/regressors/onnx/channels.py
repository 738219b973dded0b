"""Images with their channels last.

ONNX has channels first, and compilers compute convolutions with channels last: XLA's for CPUs
transposes before and after each. Convolutions and poolings therefore return `ChannelsLast`, and
the operators that are entered here go on with it; to all others it is given in ONNX's own order.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from diffcf_jax.regressors.onnx.model import Node
from diffcf_jax.regressors.onnx.table import OPERATORS, Array, Operator, axes_of, axis_of, library


@dataclasses.dataclass(frozen=True)
class ChannelsLast:
    """An array that ONNX knows as [B, C, ...].

    Attributes:
        x: [B, ..., C].
    """

    x: jax.Array

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self.x.ndim

    @property
    def shape(self) -> tuple[int, ...]:
        """In ONNX's order."""
        batch, *sizes, channels = self.x.shape
        return (batch, channels, *sizes)


Value = Array | ChannelsLast


def channels_first(value: Any) -> Any:
    """Return a value in ONNX's order."""
    return jnp.moveaxis(value.x, -1, 1) if isinstance(value, ChannelsLast) else value


def channels_last(value: Value) -> jax.Array:
    """Return [B, ..., C]."""
    return value.x if isinstance(value, ChannelsLast) else jnp.moveaxis(jnp.asarray(value), 1, -1)


def apply(node: Node, inputs: list[Any]) -> Any:
    """Compute an operator of ONNX, with channels last where it can go on with them."""
    if any(isinstance(value, ChannelsLast) for value in inputs):
        keep = _KEEPING.get(node.op)
        result = None if keep is None else keep(node, *inputs)
        if result is not None:
            return result
    if node.op not in _TAKING:
        inputs = [channels_first(value) for value in inputs]
    return OPERATORS[node.op](node, *inputs)


def _elementwise(node: Node, *inputs: Any) -> ChannelsLast | None:
    """On each element; what is broadcast against the image follows its order."""
    rank = max(value.ndim for value in inputs if isinstance(value, ChannelsLast))
    if any(getattr(value, "ndim", 0) > rank for value in inputs):
        return None
    moved = [_aligned(value, rank) for value in inputs]
    if any(value is not None and value.ndim not in (0, rank) for value in moved):
        return None
    return ChannelsLast(jnp.asarray(OPERATORS[node.op](node, *moved)))


def _aligned(value: Any, rank: int) -> Any:
    if value is None or isinstance(value, ChannelsLast):
        return None if value is None else value.x
    if value.ndim == 0:
        return value
    shape = (1,) * (rank - value.ndim) + value.shape
    return library(value).moveaxis(value.reshape(shape), 1, -1)


def _concatenate(node: Node, *inputs: Any) -> ChannelsLast | None:
    rank = inputs[0].ndim
    axis = axis_of(node, node.get("axis", 1), rank)
    place = {0: 0, 1: rank - 1}.get(axis, axis - 1)
    return ChannelsLast(jnp.concatenate([channels_last(value) for value in inputs], place))


def _mean(node: Node, value: Any, axes: Any = None) -> Value | None:
    """The mean over pixels."""
    chosen = axes_of(node, axes, value.ndim)
    if not isinstance(value, ChannelsLast) or set(chosen or ()) != set(range(2, value.ndim)):
        return None
    keep = bool(node.get("keepdims", 1))
    y = value.x.mean(tuple(range(1, value.ndim - 1)), keepdims=keep)
    return ChannelsLast(y) if keep else y


_ELEMENTWISE = (
    "Add", "Sub", "Mul", "Div", "Pow", "Min", "Max", "Sum", "Neg", "Abs", "Sqrt", "Exp", "Log",
    "Tanh", "Erf", "Where", "Identity", "Clip", "Relu", "Sigmoid", "Softplus", "Softsign", "Mish",
    "LeakyRelu", "PRelu", "Elu", "Selu", "Celu", "HardSigmoid", "HardSwish", "Gelu", "Swish",
)  # fmt: skip
_KEEPING: dict[str, Operator] = {
    **dict.fromkeys(_ELEMENTWISE, _elementwise), "Concat": _concatenate, "ReduceMean": _mean,
}  # fmt: skip
_TAKING = {
    "Conv", "ConvTranspose", "MaxPool", "AveragePool", "LpPool", "GlobalAveragePool",
    "GlobalMaxPool", "GlobalLpPool", "BatchNormalization",
}  # fmt: skip
