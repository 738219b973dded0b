"""DenseNet regressor and classifier: an image to one number, or to one logit per class."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffcf_jax.models.convnet import batch_norm, conv
from diffcf_jax.models.layers import avg_pool, uniform_fan_in


class DenseLayer(nn.Module):
    """Bottleneck whose output is appended to its input."""

    growth: int
    bn_size: int
    dtype: Any = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], train: bool = False
    ) -> Float[Array, "b h w c+{self.growth}"]:
        """Return x with `growth` more channels."""
        h = nn.relu(batch_norm(train, self.dtype, "norm1")(x))
        h = conv(self.bn_size * self.growth, 1, 1, 0, self.dtype, "conv1", "fan_in")(h)
        h = nn.relu(batch_norm(train, self.dtype, "norm2")(h))
        h = conv(self.growth, 3, 1, 1, self.dtype, "conv2", "fan_in")(h)
        return jnp.concatenate([x, h], axis=-1)


class Transition(nn.Module):
    """Halve resolution and channels between two dense blocks."""

    dtype: Any = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], train: bool = False
    ) -> Float[Array, "b h//2 w//2 c//2"]:
        """Map [B, H, W, C] to [B, H/2, W/2, C/2]."""
        h = nn.relu(batch_norm(train, self.dtype, "norm")(x))
        h = conv(x.shape[-1] // 2, 1, 1, 0, self.dtype, "conv", "fan_in")(h)
        return avg_pool(h)


class DenseNet(nn.Module):
    """DenseNet with a linear head; the defaults are a densenet121 with a scalar output.

    Huang et al. 2017 (arXiv:1608.06993), in torchvision's form.

    Attributes:
        growth: channels that a dense layer adds.
        blocks: number of dense layers in each block.
        init_features: channels of the stem.
        bn_size: a dense layer's bottleneck has bn_size * growth channels.
        outputs: None for a regressor (one value per image), or the number of logits.
        mu: mean that is subtracted from each channel of the image in [0, 1].
        sigma: what the difference is divided by.
        dtype: compute type of the convolutions (None: that of input and parameters);
            normalisation statistics and the head are never below float32.
    """

    growth: int = 32
    blocks: Sequence[int] = (6, 12, 24, 16)
    init_features: int = 64
    bn_size: int = 4
    outputs: int | None = None
    mu: Sequence[float] = (0.5, 0.5, 0.5)
    sigma: Sequence[float] = (0.5, 0.5, 0.5)
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w 3"], train: bool = False) -> Float[Array, "b ..."]:
        """Predict one value (or `outputs` logits) per image.

        Args:
            x: images in [0, 1].
            train: normalise with the batch's statistics and update `batch_stats`.

        Returns:
            Predictions [B], or logits [B, outputs]; at least float32.
        """
        h = (x - jnp.asarray(self.mu, x.dtype)) / jnp.asarray(self.sigma, x.dtype)
        h = conv(self.init_features, 7, 2, 3, self.dtype, "conv0", "fan_in")(h)
        h = nn.relu(batch_norm(train, self.dtype, "norm0")(h))
        h = nn.max_pool(h, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
        for block, count in enumerate(self.blocks, start=1):
            for layer in range(1, count + 1):
                name = f"denseblock{block}_denselayer{layer}"
                h = DenseLayer(self.growth, self.bn_size, self.dtype, name=name)(h, train)
            if block < len(self.blocks):
                h = Transition(self.dtype, name=f"transition{block}")(h, train)
        h = nn.relu(batch_norm(train, self.dtype, "norm5")(h))
        h = h.astype(jnp.promote_types(h.dtype, jnp.float32)).mean(axis=(1, 2))
        y = nn.Dense(self.outputs or 1, kernel_init=uniform_fan_in, name="classifier")(h)
        return y[:, 0] if self.outputs is None else y
