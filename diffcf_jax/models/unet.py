"""The UNet of ADM (Dhariwal and Nichol, 2021), which Diff-AE conditions on a code."""

import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Real

from diffcf_jax.models.layers import (
    AttentionBlock,
    Downsample,
    GroupNorm,
    ResBlock,
    Upsample,
    conv,
    depth_to_space,
    space_to_depth,
    timestep_embedding,
    uniform_fan_in,
)

GEOMETRY_EMBED = "geometry_embed"  # no bias: zeros say nothing


class UNet(nn.Module):
    """Predicts noise (and, with twice the channels, its variance) from a noised image.

    Module names are the addresses of the PyTorch originals (`input_blocks_3_0` is their
    `input_blocks.3.0`), so that their checkpoints can be read key by key.

    Attributes:
        channels: base width; level l has `channels * channel_mult[l]`.
        channel_mult: one factor per level; every level halves the resolution.
        num_res_blocks: ResBlocks per level on the way down; one more on the way up.
        attention_downsampling: the downsampling factors (1, 2, 4, ...) whose levels attend.
        num_heads: attention heads, unless `num_head_channels` is given.
        num_head_channels: channels per head.
        out_channels: 3 for noise, 6 for noise and variance.
        emb_channels: width of the timestep embedding; None is `4 * channels`.
        scale_shift_norm: how the timestep modulates a ResBlock.
        resblock_updown: change resolution inside ResBlocks instead of by `conv_resample`.
        conv_resample: a convolution with every change of resolution outside ResBlocks.
        qkv_before_heads: the "new attention order" of the originals.
        dropout: rate in training.
        norm_groups: groups of every norm.
        norm_eps: added to the variance in every norm.
        max_period: of the timestep embedding, see `timestep_embedding`.
        pad_end: how the convolution of `conv_resample` pads, see `Downsample`.
        patch_size: the stem folds patches of this size into channels and the head unfolds them; 1
            is the original network, 2 or 4 a cheaper one at full image resolution.
        geometry_channels: numbers that describe how an augmentation changed the image, which enter
            beside the timestep; 0 for a network that is not told.
        dtype: compute dtype of convolutions and attention; None follows the parameters. Norms,
            softmax, the timestep embedding and the output are float32 at least.
        remat: recompute every block in the backward pass instead of keeping its activations.
    """

    channels: int = 128
    channel_mult: Sequence[int] = (1, 1, 2, 2, 4, 4)
    num_res_blocks: int = 2
    attention_downsampling: Sequence[int] = (8, 16, 32)
    num_heads: int = 1
    num_head_channels: int | None = None
    out_channels: int = 6
    emb_channels: int | None = None
    scale_shift_norm: bool = True
    resblock_updown: bool = True
    conv_resample: bool = True
    qkv_before_heads: bool = False
    dropout: float = 0.0
    norm_groups: int = 32
    norm_eps: float = 1e-5
    max_period: float = 10_000.0
    pad_end: bool = False
    patch_size: int = 1
    geometry_channels: int = 0
    dtype: Any = None
    remat: bool = False

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b h w _"],
        t: Real[Array, " b"],
        cond: Float[Array, "b d"] | None = None,
        train: bool = False,
        geometry: Float[Array, "b {self.geometry_channels}"] | None = None,
    ) -> Float[Array, "b h w {self.out_channels}"]:
        """Applies the network.

        Args:
            x: noised images, in about [-1, 1].
            t: timesteps on the scale of the original process.
            cond: semantic codes of a Diff-AE, or None.
            train: with dropout.
            geometry: how the image was changed; None: not at all, as a vector of zeros.
        """
        res_block = nn.remat(ResBlock, static_argnums=(4,)) if self.remat else ResBlock
        attention_block = nn.remat(AttentionBlock) if self.remat else AttentionBlock
        norm = functools.partial(GroupNorm, groups=self.norm_groups, eps=self.norm_eps)

        def res(h: Array, features: int, name: str, resample: str | None = None) -> Array:
            block = res_block(
                features,
                resample=resample,
                scale_shift_norm=self.scale_shift_norm,
                dropout=self.dropout,
                dtype=self.dtype,
                norm=norm,
                name=name,
            )
            return block(h, emb, cond, train)

        def attend(h: Array, name: str) -> Array:
            heads = self.num_heads
            if self.num_head_channels:
                heads = h.shape[-1] // self.num_head_channels
            block = attention_block(heads, self.qkv_before_heads, self.dtype, norm, name=name)
            return block(h)

        # Timestep embedding
        emb_channels = self.emb_channels or 4 * self.channels
        t = t.astype(jnp.promote_types(x.dtype, jnp.float32))
        emb = timestep_embedding(t, self.channels, self.max_period)
        if self.geometry_channels:
            if geometry is None:
                geometry = jnp.zeros((x.shape[0], self.geometry_channels), emb.dtype)
            zeros = nn.initializers.zeros
            emb += nn.Dense(self.channels, False, kernel_init=zeros, name=GEOMETRY_EMBED)(geometry)
        emb = nn.Dense(emb_channels, kernel_init=uniform_fan_in, name="time_embed_0")(emb)
        emb = nn.Dense(emb_channels, kernel_init=uniform_fan_in, name="time_embed_2")(nn.silu(emb))

        # Down
        widths = [int(mult * self.channels) for mult in self.channel_mult]
        h = space_to_depth(x, self.patch_size)
        h = conv(widths[0], 3, self.dtype, "input_blocks_0_0")(h)
        skips = [h]
        downsampling = 1
        for level, width in enumerate(widths):
            for _ in range(self.num_res_blocks):
                name = f"input_blocks_{len(skips)}"
                h = res(h, width, f"{name}_0")
                if downsampling in self.attention_downsampling:
                    h = attend(h, f"{name}_1")
                skips.append(h)
            if level < len(widths) - 1:
                name = f"input_blocks_{len(skips)}_0"
                if self.resblock_updown:
                    h = res(h, width, name, "down")
                else:
                    h = Downsample(self.conv_resample, self.dtype, self.pad_end, name=name)(h)
                skips.append(h)
                downsampling *= 2

        # Middle
        h = res(h, widths[-1], "middle_block_0")
        h = attend(h, "middle_block_1")
        h = res(h, widths[-1], "middle_block_2")

        # Up
        index = 0
        for level, width in reversed(list(enumerate(widths))):
            for i in range(self.num_res_blocks + 1):
                name = f"output_blocks_{index}"
                h = res(jnp.concatenate([h, skips.pop()], axis=-1), width, f"{name}_0")
                last = 1
                if downsampling in self.attention_downsampling:
                    h = attend(h, f"{name}_1")
                    last = 2
                if level > 0 and i == self.num_res_blocks:
                    if self.resblock_updown:
                        h = res(h, width, f"{name}_{last}", "up")
                    else:
                        h = Upsample(self.conv_resample, self.dtype, name=f"{name}_{last}")(h)
                    downsampling //= 2
                index += 1

        # Head
        h = nn.silu(norm(name="out_norm")(h))
        h = conv(self.out_channels * self.patch_size**2, name="out_conv", zeros=True)(h)
        return depth_to_space(h, self.patch_size)
