"""The Diffusion Autoencoder (Preechakul et al., 2022): semantic encoder and conditional UNet."""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float, Real

from diffcf_jax.models.layers import (
    AttentionBlock,
    Downsample,
    GroupNorm,
    Images,
    ResBlock,
    conv,
    space_to_depth,
    uniform_fan_in,
)
from diffcf_jax.models.unet import UNet

Codes = Float[Array, "b d"]


class SemanticEncoder(nn.Module):
    """Maps an image to its semantic code z_sem: the descending half of a UNet, pooled.

    Attributes:
        z_channels: size of the code.
        channels: base width; level l has `channels * channel_mult[l]`.
        channel_mult: one factor per level.
        num_res_blocks: ResBlocks per level, of one convolution each.
        attention_downsampling: the downsampling factors whose levels attend.
        num_heads: attention heads.
        num_head_channels: channels per head, instead of `num_heads`.
        resblock_updown: change resolution inside ResBlocks.
        conv_resample: a convolution with every change of resolution outside ResBlocks.
        qkv_before_heads: the "new attention order" of the originals.
        patch_size: the stem folds patches of this size into channels.
        dtype: compute dtype; None follows the parameters.
    """

    z_channels: int = 512
    channels: int = 128
    channel_mult: Sequence[int] = (1, 1, 2, 2, 4, 4, 4)
    num_res_blocks: int = 2
    attention_downsampling: Sequence[int] = (16,)
    num_heads: int = 1
    num_head_channels: int | None = None
    resblock_updown: bool = True
    conv_resample: bool = True
    qkv_before_heads: bool = False
    patch_size: int = 1
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Images, train: bool = False) -> Float[Array, "b {self.z_channels}"]:
        """Encodes images in [-1, 1]."""

        def res(h: Array, features: int, name: str, resample: str | None = None) -> Array:
            block = ResBlock(features, resample, conditioned=False, dtype=self.dtype, name=name)
            return block(h, train=train)

        def attend(h: Array, name: str) -> Array:
            heads = self.num_heads
            if self.num_head_channels:
                heads = h.shape[-1] // self.num_head_channels
            return AttentionBlock(heads, self.qkv_before_heads, self.dtype, name=name)(h)

        widths = [int(mult * self.channels) for mult in self.channel_mult]
        h = space_to_depth(x, self.patch_size)
        h = conv(widths[0], 3, self.dtype, "input_blocks_0_0")(h)
        index, downsampling = 1, 1
        for level, width in enumerate(widths):
            for _ in range(self.num_res_blocks):
                h = res(h, width, f"input_blocks_{index}_0")
                if downsampling in self.attention_downsampling:
                    h = attend(h, f"input_blocks_{index}_1")
                index += 1
            if level < len(widths) - 1:
                if self.resblock_updown:
                    h = res(h, width, f"input_blocks_{index}_0", "down")
                else:
                    name = f"input_blocks_{index}_0"
                    h = Downsample(self.conv_resample, self.dtype, name=name)(h)
                index += 1
                downsampling *= 2
        h = res(h, widths[-1], "middle_block_0")
        h = attend(h, "middle_block_1")
        h = res(h, widths[-1], "middle_block_2")

        h = nn.silu(GroupNorm(name="out_norm")(h)).mean((1, 2))  # [B, channels]
        return nn.Dense(self.z_channels, kernel_init=uniform_fan_in, name="out_proj")(h)


class DiffAE(nn.Module):
    """A Diffusion Autoencoder: `encode` gives z_sem, `predict` the noise in x_t given z_sem.

    Attributes:
        unet: arguments of `UNet`; its output is the noise, 3 channels.
        encoder: arguments of `SemanticEncoder`.
        dtype: compute dtype of both.
        remat: recompute every UNet block in the backward pass.
    """

    unet: Mapping[str, Any]
    encoder: Mapping[str, Any]
    dtype: Any = None
    remat: bool = False

    def setup(self) -> None:
        """Makes the two networks; `unet` and `encoder` are also their parameters' names."""
        self.unet_ = UNet(**self.unet, dtype=self.dtype, remat=self.remat, name="unet")
        self.encoder_ = SemanticEncoder(**self.encoder, dtype=self.dtype, name="encoder")

    def encode(self, x: Images, train: bool = False) -> Codes:
        """Encodes images in [-1, 1] into z_sem."""
        return self.encoder_(x, train)

    def predict(
        self, x_t: Images, t: Real[Array, " b"], z_sem: Codes, train: bool = False
    ) -> Images:
        """Predicts the noise in x_t at timesteps t given z_sem."""
        return self.unet_(x_t, t, z_sem, train)

    def __call__(self, x: Images, x_t: Images, t: Real[Array, " b"], train: bool = False) -> Images:
        """Encodes x and predicts the noise in x_t: what is trained, and what initialises."""
        return self.predict(x_t, t, self.encode(x, train), train)
