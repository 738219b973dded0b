"""The ResNet-50 that VGGFace2 published for Caffe: identity features and facial attributes."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffcf_jax.models.convnet import batch_norm, conv
from diffcf_jax.models.layers import uniform_fan_in
from diffcf_jax.models.resize import resize_bicubic, resize_bilinear

IMAGE_SIZE = 224
# VGGFace2's mean colour in B, G, R, in [0, 255] (Cao et al. 2018, arXiv:1710.08092), float32 as in
# the originals
MEAN_BGR = np.float32((91.4953, 103.8827, 131.0912))


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions around a shortcut.

    The first one has the stride, or the second one unless `caffe`.
    """

    features: int
    stride: int = 1
    dtype: Any = None
    caffe: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b _ _ 4*{self.features}"]:
        """Map [B, H, W, C] to [B, H/stride, W/stride, 4 features]."""
        first, second = (self.stride, 1) if self.caffe else (1, self.stride)
        h = conv(self.features, 1, first, 0, self.dtype, "conv1")(x)
        h = nn.relu(batch_norm(False, self.dtype, "bn1")(h))
        h = conv(self.features, 3, second, 1, self.dtype, "conv2")(h)
        h = nn.relu(batch_norm(False, self.dtype, "bn2")(h))
        h = conv(4 * self.features, 1, 1, 0, self.dtype, "conv3")(h)
        h = batch_norm(False, self.dtype, "bn3")(h)
        if self.stride != 1 or x.shape[-1] != 4 * self.features:
            x = conv(4 * self.features, 1, self.stride, 0, self.dtype, "downsample_conv")(x)
            x = batch_norm(False, self.dtype, "downsample_bn")(x)
        return nn.relu(x + h)


class CaffeResNet(nn.Module):
    """ResNet-50 in Caffe's form, for inference.

    It differs from torchvision's in the stride, which sits in a block's first 1x1 convolution, and
    in a max pool without padding that keeps a partial last window.

    Attributes:
        width: channels of the stem.
        blocks: number of bottlenecks in each stage.
        outputs: None for the pooled features, or the number of logits of a linear head.
        dtype: compute type of the convolutions (None: that of input and parameters).
    """

    width: int = 64
    blocks: Sequence[int] = (3, 4, 6, 3)
    outputs: int | None = None
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w 3"]) -> Float[Array, "b _"]:
        """Apply the network.

        Args:
            x: what `vggface2_input` or `mnac_input` returns.

        Returns:
            Features [B, 32 width], or logits [B, outputs]; at least float32.
        """
        h = conv(self.width, 7, 2, 3, self.dtype, "conv1")(x)
        h = nn.relu(batch_norm(False, self.dtype, "bn1")(h))
        padding = [(0, 1 - size % 2) for size in h.shape[1:3]]
        h = nn.max_pool(h, (3, 3), strides=(2, 2), padding=padding)
        for stage, count in enumerate(self.blocks):
            for block in range(count):
                stride = 2 if stage > 0 and block == 0 else 1
                name = f"layer{stage + 1}_{block}"
                h = Bottleneck(self.width * 2**stage, stride, self.dtype, name=name)(h)
        h = h.astype(jnp.promote_types(h.dtype, jnp.float32)).mean(axis=(1, 2))  # 7x7 at 224
        if self.outputs is None:
            return h
        return nn.Dense(self.outputs, kernel_init=uniform_fan_in, name="classifier")(h)


def vggface2_input(x: Float[Array, "b _ _ 3"]) -> Float[Array, "b 224 224 3"]:
    """Prepare images for the identity network: 224 px, B, G, R in [0, 255], mean subtracted.

    Args:
        x: images in [0, 1], R, G, B.
    """
    x = resize_bilinear(x, IMAGE_SIZE, IMAGE_SIZE)
    return x[..., ::-1] * 255 - jnp.asarray(MEAN_BGR, x.dtype)


def mnac_input(x: Float[Array, "b _ _ 3"], normalisations: int = 2) -> Float[Array, "b 224 224 3"]:
    """Prepare images for the attribute network: x -> 2x - 1, `normalisations` times, then 224 px.

    ACE's evaluation, and the paper's after it, normalises twice (4x - 3), which published figures
    of this metric contain; the network was trained on images that are normalised once.

    Args:
        x: images in [0, 1].
        normalisations: 2 for figures that compare with the published ones, 1 as trained.
    """
    for _ in range(normalisations):
        x = 2 * x - 1
    return resize_bicubic(x, IMAGE_SIZE, IMAGE_SIZE)
