"""The layers that convolutional networks with normalised channels are made of."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def conv(
    features: int,
    size: int,
    stride: int,
    padding: int,
    dtype: Any,
    name: str,
    fan: str = "fan_out",
    circular: bool = False,
) -> Callable[[jax.Array], jax.Array]:
    """Make a square convolution without bias, padded by `padding` pixels on every side.

    Args:
        features: output channels.
        size: kernel size.
        stride: stride.
        padding: pixels on every side ("SAME" would pad differently for a stride of 2).
        dtype: compute type, None for that of input and parameters.
        name: the module's name.
        fan: "fan_out" or "fan_in", for He initialisation (arXiv:1502.01852).
        circular: the padding is the opposite edge instead of zeros.
    """
    margins = ((padding, padding), (padding, padding))
    module = nn.Conv(
        features,
        (size, size),
        strides=(stride, stride),
        padding="VALID" if circular else margins,
        use_bias=False,
        dtype=dtype,
        kernel_init=nn.initializers.variance_scaling(2.0, fan, "normal"),
        name=name,
    )
    if not circular:
        return module
    return lambda x: module(jnp.pad(x, ((0, 0), *margins, (0, 0)), mode="wrap"))


def batch_norm(train: bool, dtype: Any, name: str) -> nn.BatchNorm:
    """Make a batch norm with PyTorch's epsilon and running average (momentum 0.1 there)."""
    return nn.BatchNorm(
        use_running_average=not train, momentum=0.9, epsilon=1e-5, dtype=dtype, name=name
    )


class Affine(nn.Module):
    """A scale and a shift of each channel: a batch norm whose statistics are part of them."""

    @nn.compact
    def __call__(self, x: Float[Array, "*b c"]) -> Float[Array, "*b c"]:
        """Return scale x + bias."""
        shape = (x.shape[-1],)
        scale = self.param("scale", nn.initializers.ones, shape)
        return x * scale + self.param("bias", nn.initializers.zeros, shape)
