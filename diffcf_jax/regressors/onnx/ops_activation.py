"""Activations and softmaxes."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from diffcf_jax.errors import UserError
from diffcf_jax.regressors.onnx.model import Node
from diffcf_jax.regressors.onnx.table import OPERATORS, Array, axis_of, operator, static

OPERATORS.update(
    {
        # jax.nn.relu has the derivative 0 at 0, where that of jnp.maximum is 1/2.
        "Relu": lambda node, x: jax.nn.relu(jnp.asarray(x)),
        "Sigmoid": lambda node, x: jax.nn.sigmoid(jnp.asarray(x)),
        "Softplus": lambda node, x: jax.nn.softplus(jnp.asarray(x)),
        "Softsign": lambda node, x: jax.nn.soft_sign(jnp.asarray(x)),
        "Mish": lambda node, x: jax.nn.mish(jnp.asarray(x)),
    }
)


@operator("LeakyRelu")
def _leaky_relu(node: Node, x: Array) -> Array:
    return jnp.where(x > 0, x, x * node.get("alpha", 0.01))


@operator("PRelu")
def _prelu(node: Node, x: Array, slope: Array) -> Array:
    return jnp.where(x > 0, x, x * slope)


@operator("ThresholdedRelu")
def _thresholded_relu(node: Node, x: Array) -> Array:
    return jnp.where(x > node.get("alpha", 1.0), x, jnp.zeros_like(x))


@operator("Elu", "Selu", "Celu")
def _elu(node: Node, x: Array) -> Array:
    alpha, gamma = {
        "Elu": (1.0, 1.0), "Celu": (1.0, 1.0), "Selu": (1.6732632423543772, 1.0507009873554805),
    }[node.op]  # fmt: skip
    alpha, gamma = node.get("alpha", alpha), node.get("gamma", gamma)
    if node.op == "Celu":
        return jax.nn.celu(jnp.asarray(x), alpha)
    return gamma * jax.nn.elu(jnp.asarray(x), alpha)


@operator("HardSigmoid")
def _hard_sigmoid(node: Node, x: Array) -> Array:
    return _unit_clip(x * node.get("alpha", 0.2) + node.get("beta", 0.5))


@operator("HardSwish")
def _hard_swish(node: Node, x: Array) -> Array:
    return x * _unit_clip(x / 6 + 0.5)


@operator("Gelu")
def _gelu(node: Node, x: Array) -> Array:
    return jax.nn.gelu(jnp.asarray(x), approximate=node.get("approximate", "none") == "tanh")


@operator("Swish")
def _swish(node: Node, x: Array) -> Array:
    return x * jax.nn.sigmoid(node.get("alpha", 1.0) * jnp.asarray(x))


@operator("Shrink")
def _shrink(node: Node, x: Array) -> Array:
    bound, bias = node.get("lambd", 0.5), node.get("bias", 0.0)
    return jnp.where(x < -bound, x + bias, jnp.where(x > bound, x - bias, jnp.zeros_like(x)))


@operator("Softmax", "LogSoftmax", "Hardmax")
def _softmax(node: Node, x: Array) -> Array:
    """Along an axis; before opset 13 over all axes from that one on."""
    function: Callable[..., Array] = {
        "Softmax": jax.nn.softmax, "LogSoftmax": jax.nn.log_softmax, "Hardmax": _hardmax,
    }[node.op]  # fmt: skip
    x = jnp.asarray(x)
    if node.opset >= 13:
        return function(x, axis=node.get("axis", -1))
    axis = axis_of(node, node.get("axis", 1), x.ndim)
    flat = x.reshape(math.prod(x.shape[:axis]), -1)
    return function(flat, axis=1).reshape(x.shape)


@operator("Dropout")
def _dropout(
    node: Node, x: Array, ratio: Array | None = None, training: Array | None = None
) -> tuple[Array, Array]:
    if training is not None and bool(static(node, training, "the mode").any()):
        raise UserError(f"{node} is in training mode: call model.eval() before the export.")
    return x, np.ones(x.shape, bool)


def _unit_clip(x: Array) -> Array:
    """Clip to [0, 1], with the derivative 0 on the borders."""
    return jnp.where(x <= 0, 0.0, jnp.where(x >= 1, 1.0, x)).astype(x.dtype)


def _hardmax(x: Array, axis: int) -> Array:
    return jax.nn.one_hot(jnp.argmax(x, axis), x.shape[axis], axis=axis, dtype=x.dtype)
