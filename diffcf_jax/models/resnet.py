"""ResNet regressor: an image to one number."""

import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffcf_jax.models.convnet import batch_norm, conv
from diffcf_jax.models.layers import uniform_fan_in


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut; the first one has the stride."""

    features: int
    stride: int = 1
    circular: bool = False
    dtype: Any = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], train: bool = False
    ) -> Float[Array, "b _ _ {self.features}"]:
        """Return relu(shortcut(x) + residual(x))."""
        shortcut = x
        conv3 = functools.partial(conv, dtype=self.dtype, circular=self.circular)
        h = conv3(self.features, 3, self.stride, 1, name="conv1")(x)
        h = nn.relu(batch_norm(train, self.dtype, "bn1")(h))
        h = conv3(self.features, 3, 1, 1, name="conv2")(h)
        h = batch_norm(train, self.dtype, "bn2")(h)
        if self.stride != 1 or x.shape[-1] != self.features:
            shortcut = conv(self.features, 1, self.stride, 0, self.dtype, "downsample_conv")(x)
            shortcut = batch_norm(train, self.dtype, "downsample_bn")(shortcut)
        return nn.relu(shortcut + h)


class ResNet(nn.Module):
    """ResNet with basic blocks and a scalar head; the defaults are the squares regressor.

    The defaults are torchvision's resnet18 (He et al. 2016, arXiv:1512.03385) with a 4x4 stem of
    stride 1, so that a 64x64 image keeps its resolution until the max pool.

    Attributes:
        width: channels of the stem and the first stage; each later stage doubles them.
        blocks: number of basic blocks in each stage.
        stem_kernel: kernel size of the first convolution.
        stem_stride: its stride.
        stem_padding: its zero padding on each side.
        max_pool: halve the resolution after the stem; maxima forget what a mean needs.
        hidden: width of a layer between the pooled features and the head, or None.
        circular: convolutions take an edge's neighbours from the opposite edge instead of zeros,
            so that a prediction does not depend on where in the image something is.
        dtype: compute type of the convolutions (None: that of input and parameters);
            normalisation statistics and the head are never below float32.
    """

    width: int = 64
    blocks: Sequence[int] = (2, 2, 2, 2)
    stem_kernel: int = 4
    stem_stride: int = 1
    stem_padding: int = 2
    max_pool: bool = True
    hidden: int | None = None
    circular: bool = False
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w 3"], train: bool = False) -> Float[Array, " b"]:
        """Predict one value per image.

        Args:
            x: images in [0, 1], used as they are.
            train: normalise with the batch's statistics and update `batch_stats`.

        Returns:
            Predictions, at least float32.
        """
        stem = conv(
            self.width,
            self.stem_kernel,
            self.stem_stride,
            self.stem_padding,
            self.dtype,
            "conv1",
            circular=self.circular,
        )
        h = stem(x)
        h = nn.relu(batch_norm(train, self.dtype, "bn1")(h))
        if self.max_pool:
            h = nn.max_pool(h, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
        for stage, count in enumerate(self.blocks):
            for block in range(count):
                stride = 2 if stage > 0 and block == 0 else 1
                name = f"layer{stage + 1}_{block}"
                features = self.width * 2**stage
                h = BasicBlock(features, stride, self.circular, self.dtype, name=name)(h, train)
        h = h.astype(jnp.promote_types(h.dtype, jnp.float32)).mean(axis=(1, 2))
        if self.hidden is not None:
            h = nn.relu(nn.Dense(self.hidden, kernel_init=uniform_fan_in, name="hidden")(h))
        return nn.Dense(1, kernel_init=uniform_fan_in, name="fc")(h)[:, 0]
