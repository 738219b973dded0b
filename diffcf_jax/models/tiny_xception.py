"""face-api's age network, a small Xception: a face to its age."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffcf_jax.models.resize import resize_tensorflow1

IMAGE_SIZE = 112
MEAN_RGB = np.float32((122.782, 117.001, 104.298))  # of the faces it was trained on, in [0, 255]


class SeparableConv(nn.Module):
    """A 3x3 convolution of each channel by itself, and a 1x1 convolution of all."""

    features: int

    @nn.compact
    def __call__(self, x: Float[Array, "b h w _"]) -> Float[Array, "b h w {self.features}"]:
        """Map [B, H, W, C] to [B, H, W, features]."""
        channels = x.shape[-1]
        x = nn.Conv(
            channels, (3, 3), feature_group_count=channels, use_bias=False, name="depthwise"
        )(x)
        return nn.Conv(self.features, (1, 1), name="pointwise")(x)


class ReductionBlock(nn.Module):
    """Two separable convolutions and a max pool beside a 1x1 convolution, at half the size."""

    features: int
    activate: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "b _ _ _"]) -> Float[Array, "b _ _ {self.features}"]:
        """Map [B, H, W, C] to [B, H/2, W/2, features]; `activate` says whether x is rectified."""
        h = SeparableConv(self.features, name="separable_conv0")(nn.relu(x) if self.activate else x)
        h = SeparableConv(self.features, name="separable_conv1")(nn.relu(h))
        h = nn.max_pool(h, (3, 3), strides=(2, 2), padding="SAME")
        return h + nn.Conv(self.features, (1, 1), strides=(2, 2), name="expansion_conv")(x)


class MainBlock(nn.Module):
    """Three separable convolutions around a shortcut."""

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        """Return x + residual(x)."""
        h = x
        for i in range(3):
            h = SeparableConv(x.shape[-1], name=f"separable_conv{i}")(nn.relu(h))
        return x + h


class TinyXception(nn.Module):
    """The age network of face-api.

    Attributes:
        width: channels of the stem.
        blocks: number of blocks in the middle.

    Source: the npm package @vladmandic/face-api 1.7.15, `age_gender_model`.
    """

    width: int = 32
    blocks: int = 2

    @nn.compact
    def __call__(self, x: Float[Array, "b _ _ 3"], train: bool = False) -> Float[Array, " b"]:
        """Predict ages.

        Args:
            x: aligned faces in [0, 1], of any size; resized to 112 pixels as TensorFlow 1 did.
            train: changes nothing: there are no batch statistics.

        Returns:
            Years, not bounded.
        """
        h = resize_tensorflow1(255 * x, IMAGE_SIZE, IMAGE_SIZE)
        h = (h - jnp.asarray(MEAN_RGB, x.dtype)) / 255
        h = nn.relu(nn.Conv(self.width, (3, 3), strides=(2, 2), name="entry_flow_conv_in")(h))
        h = ReductionBlock(2 * self.width, False, name="entry_flow_reduction_block_0")(h)
        h = ReductionBlock(4 * self.width, name="entry_flow_reduction_block_1")(h)
        for block in range(self.blocks):
            h = MainBlock(name=f"middle_flow_main_block_{block}")(h)
        h = ReductionBlock(8 * self.width, name="exit_flow_reduction_block")(h)
        h = nn.relu(SeparableConv(16 * self.width, name="exit_flow_separable_conv")(h))
        return nn.Dense(1, name="fc")(h.mean(axis=(1, 2)))[:, 0]  # of 7x7
