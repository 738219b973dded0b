"""Learned perceptual image patch similarity, on the activations of three classifiers."""

from collections.abc import Iterator
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

# ImageNet's mean and deviation, of images in [-1, 1], rounded as published
_MEAN = np.float32((-0.030, -0.088, -0.188))
_DEVIATION = np.float32((0.458, 0.448, 0.450))
_EPSILON = 1e-8


class LPIPS(nn.Module):
    """The distance of Zhang et al. 2018 (arXiv:1801.03924), version 0.1.

        sum over layers l of mean over pixels of w_l . (f_l(x) - f_l(y))^2,
        f_l = h_l / sqrt(|h_l|^2 + 1e-8) over the channels at a pixel

    The epsilon is torchmetrics'; the authors' package adds 1e-10 to the norm.

    Attributes:
        backbone: "alex", "vgg" (VGG16) or "squeeze" (SqueezeNet 1.1), in torchvision's form.
        width: channels of its first layer; 64 in the originals.
    """

    backbone: Literal["alex", "vgg", "squeeze"] = "alex"
    width: int = 64

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w 3"], y: Float[Array, "b h w 3"]
    ) -> Float[Array, " b"]:
        """Return the distance of each pair of images in [0, 1], of 32 or more pixels."""
        # The images of a pair side by side, so that they are on one device
        pairs = jnp.stack([x, y], axis=1).reshape(-1, *x.shape[1:])
        z = (2 * pairs - 1 - _MEAN) / _DEVIATION
        total = jnp.zeros(len(x), z.dtype)
        for layer, h in enumerate(_BACKBONES[self.backbone](z, self.width)):
            inverse = jax.lax.rsqrt(jnp.sum(h**2, axis=-1, keepdims=True) + _EPSILON)
            inverse = jax.lax.optimization_barrier(inverse)  # or CPUs compute it for each channel
            a, b = (h[i::2] * inverse[i::2] for i in (0, 1))
            difference = jnp.mean((a - b) ** 2, axis=(1, 2), keepdims=True)
            weigh = nn.Conv(1, (1, 1), use_bias=False, name=f"lin{layer}")
            total += weigh(difference)[:, 0, 0, 0]
        return total


class Fire(nn.Module):
    """SqueezeNet's block: few channels, then 1x1 beside 3x3."""

    squeeze: int

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w 8*{self.squeeze}"]:
        """Return eight times as many channels as `squeeze`."""
        x = _conv(x, self.squeeze, 1, "squeeze")
        wide = [_conv(x, 4 * self.squeeze, size, f"expand{size}x{size}") for size in (1, 3)]
        return jnp.concatenate(wide, axis=-1)


def _alex(x: Array, width: int) -> Iterator[Array]:
    x = _conv(x, width, 11, "features_0", stride=4, padding=2)
    yield x
    x = _conv(nn.max_pool(x, (3, 3), (2, 2)), 3 * width, 5, "features_3")
    yield x
    x = nn.max_pool(x, (3, 3), (2, 2))
    for name, factor in (("features_6", 6), ("features_8", 4), ("features_10", 4)):
        x = _conv(x, factor * width, 3, name)
        yield x


def _vgg(x: Array, width: int) -> Iterator[Array]:
    stages = ((1, (0, 2)), (2, (5, 7)), (4, (10, 12, 14)), (8, (17, 19, 21)), (8, (24, 26, 28)))
    for factor, layers in stages:
        if factor > 1:
            x = nn.max_pool(x, (2, 2), (2, 2))
        for layer in layers:
            x = _conv(x, factor * width, 3, f"features_{layer}")
        yield x


def _squeeze(x: Array, width: int) -> Iterator[Array]:
    x = _conv(x, width, 3, "features_0", stride=2, padding=0)
    yield x
    # (numbers of the blocks, their squeeze in quarters of the width, whether a pool comes first)
    stages = (
        ((3, 4), 1, True), ((6, 7), 2, True), ((9,), 3, True),
        ((10,), 3, False), ((11,), 4, False), ((12,), 4, False),
    )  # fmt: skip
    for blocks, factor, pool in stages:
        if pool:  # a partial last window is kept
            padding = [(0, 1 - size % 2) for size in x.shape[1:3]]
            x = nn.max_pool(x, (3, 3), (2, 2), padding)
        for block in blocks:
            x = Fire(factor * width // 4, name=f"features_{block}")(x)
        yield x


_BACKBONES = {"alex": _alex, "vgg": _vgg, "squeeze": _squeeze}


def _conv(
    x: Array, features: int, size: int, name: str, stride: int = 1, padding: int | None = None
) -> Array:
    """A convolution with bias, and a relu; None pads so that the resolution stays."""
    margin = size // 2 if padding is None else padding
    return nn.relu(nn.Conv(features, (size, size), stride, padding=margin, name=name)(x))
