"""The two layers that the batch-normalised networks (ResNet, DenseNet) are made of."""

import flax.linen as nn
import jax.numpy as jnp


def conv(
    features: int,
    size: int,
    stride: int,
    padding: int,
    dtype: jnp.dtype | None,
    name: str,
    fan: str = "fan_out",
) -> nn.Conv:
    """Make a square convolution without bias, padded by `padding` zeros on every side.

    Args:
        features: output channels.
        size: kernel size.
        stride: stride.
        padding: zeros on every side ("SAME" would pad differently for a stride of 2).
        dtype: compute type, None for that of input and parameters.
        name: the module's name.
        fan: "fan_out" or "fan_in", for He initialisation (arXiv:1502.01852).
    """
    return nn.Conv(
        features,
        (size, size),
        strides=(stride, stride),
        padding=((padding, padding), (padding, padding)),
        use_bias=False,
        dtype=dtype,
        kernel_init=nn.initializers.variance_scaling(2.0, fan, "normal"),
        name=name,
    )


def batch_norm(train: bool, dtype: jnp.dtype | None, name: str) -> nn.BatchNorm:
    """Make a batch norm with PyTorch's epsilon and running average (momentum 0.1 there)."""
    return nn.BatchNorm(
        use_running_average=not train, momentum=0.9, epsilon=1e-5, dtype=dtype, name=name
    )
