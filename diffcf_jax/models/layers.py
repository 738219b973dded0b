"""The blocks that the ADM UNet, the Diff-AE and its encoder are made of."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Real

from diffcf_jax.models import cpu
from diffcf_jax.models.attention import attention
from diffcf_jax.models.cpu.materialize import materialize
from diffcf_jax.models.cpu.same_conv import same_conv
from diffcf_jax.models.remat import PRODUCT, STATISTICS, SUM

Images = Float[Array, "b h w c"]

# How PyTorch initialises convolutions and linear layers: U(-1/sqrt(fan_in), 1/sqrt(fan_in)).
uniform_fan_in = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def timestep_embedding(
    t: Real[Array, " b"], dim: int, max_period: float = 10_000.0
) -> Float[Array, "b {dim}"]:
    """Embeds timesteps as `[cos(t f_i), sin(t f_i)]`, `f_i = max_period^(-2i/dim)`.

    Args:
        t: timesteps, integers or fractions, on the scale of the original process.
        dim: size of the embedding.
        max_period: the longest period, in timesteps over 2 pi.

    Returns:
        The embedding; float64 if `t` is float64, else float32.
    """
    dtype = jnp.promote_types(t.dtype, jnp.float32)
    half = dim // 2
    freqs = jnp.exp(-jnp.log(jnp.asarray(max_period, dtype)) * jnp.arange(half, dtype=dtype) / half)
    angles = t.astype(dtype)[:, None] * freqs  # [B, dim / 2]
    embedding = jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)
    return jnp.pad(embedding, ((0, 0), (0, dim % 2)))


def space_to_depth(x: Images, patch_size: int) -> Float[Array, "b _ _ _"]:
    """Folds every patch into channels: [B, H, W, C] -> [B, H/p, W/p, p p C]."""
    b, h, w, c = x.shape
    p = patch_size
    x = x.reshape(b, h // p, p, w // p, p, c).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(b, h // p, w // p, p * p * c)


def depth_to_space(x: Images, patch_size: int) -> Float[Array, "b _ _ _"]:
    """Undoes `space_to_depth`: [B, H/p, W/p, p p C] -> [B, H, W, C]."""
    b, h, w, c = x.shape
    p = patch_size
    x = x.reshape(b, h, w, p, p, c // (p * p)).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(b, h * p, w * p, c // (p * p))


def avg_pool(x: Images, size: int = 2) -> Float[Array, "b h//{size} w//{size} c"]:
    """Averages squares of `size` pixels; a last partial row or column is dropped.

    Not a windowed reduction: with one image under vmap, XLA's CPU compiler (jaxlib 0.10.2) makes
    a wrong program of a convolution that is followed by one; and its gradient is slow there.
    """
    b, h, w, c = x.shape
    x = x[:, : h // size * size, : w // size * size]
    return x.reshape(b, h // size, size, w // size, size, c).mean(axis=(2, 4))


def upsample_nearest(x: Images) -> Float[Array, "b 2*h 2*w c"]:
    """Doubles the resolution by repetition."""
    b, h, w, c = x.shape
    x = jnp.broadcast_to(x[:, :, None, :, None, :], (b, h, 2, w, 2, c))
    return x.reshape(b, 2 * h, 2 * w, c)


class GroupNorm(nn.Module):
    """Group norm over `groups` (or one per channel), with statistics in float32 at least.

    Pixels are reduced first, channels of a group after: on CPU its gradient is up to ten times
    faster so than a reduction over [pixels, channels of a group] at once.
    """

    dtype: Any = None
    groups: int = 32
    eps: float = 1e-5

    @nn.compact
    def __call__(self, x: Images) -> Images:
        """Normalises x."""
        b, _, _, c = x.shape
        scale = self.param("scale", nn.initializers.ones, (c,))
        bias = self.param("bias", nn.initializers.zeros, (c,))
        groups = min(self.groups, c)

        def group_mean(h: Images) -> Float[Array, "b 1 1 c"]:
            means = h.mean((1, 2)).reshape(b, groups, -1).mean(-1, keepdims=True)
            return jnp.broadcast_to(means, (b, groups, c // groups)).reshape(b, 1, 1, c)

        h = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        mean = checkpoint_name(group_mean(h), STATISTICS)
        variance = checkpoint_name(group_mean(jnp.square(h - mean)), STATISTICS)
        factor = jax.lax.rsqrt(variance + self.eps) * scale
        h = h * factor + (bias - mean * factor)
        return h.astype(self.dtype or h.dtype)


def conv(
    features: int,
    size: int = 3,
    dtype: Any = None,
    name: str | None = None,
    zeros: bool = False,
) -> nn.Conv:
    """Makes a convolution that keeps the resolution; `zeros` starts it at zero."""

    def convolve(x: Array, kernel: Array, *arguments: Any, **options: Any) -> Array:
        plain = jax.lax.conv_general_dilated
        y = same_conv(x, kernel) if cpu.in_use() else plain(x, kernel, *arguments, **options)
        return checkpoint_name(y, PRODUCT)

    return nn.Conv(
        features,
        (size, size),
        dtype=dtype,
        kernel_init=nn.initializers.zeros if zeros else uniform_fan_in,
        conv_general_dilated=convolve,
        name=name,
    )


class Projection(nn.Module):
    """One linear layer for several vectors: `x kernel + bias`, cut into equal parts.

    The product is cut before the bias is added. A sum that is cut, and whose parts meet again in
    one loop over pixels, costs that loop its vector instructions in XLA's CPU compiler: it takes
    five times as long.

    Attributes:
        features: the length of each part.
        parts: how many.
        dtype: of the product; None follows the parameters.
    """

    features: int
    parts: int
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "b d"]) -> list[Float[Array, "b {self.features}"]]:
        """Projects x to `parts` vectors."""
        width = self.parts * self.features
        kernel = self.param("kernel", uniform_fan_in, (x.shape[-1], width))
        bias = self.param("bias", nn.initializers.zeros, (width,))
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        cut = zip(jnp.split(x @ kernel, self.parts, -1), jnp.split(bias, self.parts), strict=True)
        return [checkpoint_name(product + part, PRODUCT) for product, part in cut]


class ResBlock(nn.Module):
    """The residual block of ADM, with the second condition of Diff-AE.

    `skip(x) + conv(dropout(silu(modulate(norm(conv(silu(norm(x))))))))`, where `modulate` is
    `h (1 + scale(emb)) + shift(emb)` for `scale_shift_norm`, else `norm(h + emb)`; a Diff-AE code
    then multiplies by `1 + scale(cond)` (Preechakul et al., 2022, eq. 7 without its shift, as in
    their code). Without `conditioned` there is one convolution: `skip(x) + conv(silu(norm(x)))`.

    Attributes:
        features: output channels.
        resample: "up", "down" or None; applied between the activation and the first convolution.
        scale_shift_norm: how the timestep modulates.
        conditioned: False for the blocks of the semantic encoder.
        dropout: rate before the last convolution, in training only.
        dtype: the dtype of the convolutions; None follows the parameters.
        norm: what makes a norm, `(dtype, name=...)`.
    """

    features: int
    resample: str | None = None
    scale_shift_norm: bool = True
    conditioned: bool = True
    dropout: float = 0.0
    dtype: Any = None
    norm: Callable[..., nn.Module] = GroupNorm

    @nn.compact
    def __call__(
        self,
        x: Images,
        emb: Float[Array, "b e"] | None = None,
        cond: Float[Array, "b d"] | None = None,
        train: bool = False,
    ) -> Float[Array, "b _ _ {self.features}"]:
        """Applies the block to x, given the embedded timestep and a semantic code."""
        resample = {"up": upsample_nearest, "down": avg_pool, None: lambda h: h}[self.resample]
        h = nn.silu(self.norm(self.dtype, name="in_norm")(x))
        h = conv(self.features, 3, self.dtype, "in_conv")(resample(h))
        x = resample(x)

        if self.conditioned:
            norm = self.norm(self.dtype, name="out_norm")
            if self.scale_shift_norm:
                scale, shift = self._project(emb, 2, "emb_proj")
                h = norm(h) * (1 + scale) + shift
            else:
                h = norm(h + self._project(emb, 1, "emb_proj")[0])
            if cond is not None:
                h = h * (1 + self._project(cond, 1, "cond_proj")[0])
            h = nn.Dropout(self.dropout, deterministic=not train)(nn.silu(h))
            h = conv(self.features, 3, self.dtype, "out_conv", zeros=True)(h)

        if x.shape[-1] != self.features:
            x = conv(self.features, 1, self.dtype, "skip_conv")(x)
        x = x + h
        if train:  # its gradient is then read by the gradients in kernels, too
            x = materialize(x)
        return checkpoint_name(x, SUM)

    def _project(
        self, emb: Float[Array, "b d"], parts: int, name: str
    ) -> list[Float[Array, "b 1 1 {self.features}"]]:
        projection = Projection(self.features, parts, self.dtype, name=name)
        return [part[:, None, None] for part in projection(nn.silu(emb))]


class AttentionBlock(nn.Module):
    """Self-attention over pixels with a residual connection, as in ADM.

    Attributes:
        num_heads: the number of heads.
        qkv_before_heads: how `qkv` lays out its 3C channels: True splits q, k, v and then heads
            (the originals' "new" order), False heads and then q, k, v (their "legacy" order).
        dtype: the dtype of the projections; the softmax is float32 at least.
        norm: what makes the norm, `(dtype, name=...)`.
    """

    num_heads: int = 1
    qkv_before_heads: bool = False
    dtype: Any = None
    norm: Callable[..., nn.Module] = GroupNorm

    @nn.compact
    def __call__(self, x: Images) -> Images:
        """Adds self-attention over the pixels."""
        b, h, w, c = x.shape
        d = c // self.num_heads
        qkv = nn.Dense(3 * c, dtype=self.dtype, kernel_init=uniform_fan_in, name="qkv")(
            self.norm(self.dtype, name="norm")(x).reshape(b, h * w, c)
        )
        qkv = checkpoint_name(qkv, PRODUCT)
        if self.qkv_before_heads:
            q, k, v = jnp.moveaxis(qkv.reshape(b, h * w, 3, self.num_heads, d), (2, 3), (0, 2))
        else:
            q, k, v = jnp.moveaxis(qkv.reshape(b, h * w, self.num_heads, 3, d), (3, 2), (0, 2))
        scale = d**-0.25  # on q and k each, so that half precision does not overflow
        out = jnp.swapaxes(attention(q * scale, k * scale, v), 1, 2).reshape(b, h * w, c)
        out = nn.Dense(
            c, dtype=self.dtype, kernel_init=nn.initializers.zeros, name="proj_out"
        )(out)  # fmt: skip
        return checkpoint_name(x + out.reshape(x.shape), SUM)


class Downsample(nn.Module):
    """Halves the resolution: a strided 3x3 convolution, or a 2x2 mean without `with_conv`.

    The convolution pads one pixel on every side, or with `pad_end` at the right and bottom only.
    """

    with_conv: bool = True
    dtype: Any = None
    pad_end: bool = False

    @nn.compact
    def __call__(self, x: Images) -> Float[Array, "b _ _ c"]:
        """Maps [B, H, W, C] to [B, H/2, W/2, C]."""
        if not self.with_conv:
            return avg_pool(x)
        h = nn.Conv(
            x.shape[-1], (3, 3), strides=2, padding=[(0 if self.pad_end else 1, 1)] * 2,
            dtype=self.dtype, kernel_init=uniform_fan_in, name="conv",
        )(x)  # fmt: skip
        return checkpoint_name(h, PRODUCT)


class Upsample(nn.Module):
    """Doubles the resolution by repetition, then a 3x3 convolution if `with_conv`."""

    with_conv: bool = True
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Images) -> Float[Array, "b 2*h 2*w c"]:
        """Maps [B, H, W, C] to [B, 2H, 2W, C]."""
        x = upsample_nearest(x)
        return conv(x.shape[-1], 3, self.dtype, "conv")(x) if self.with_conv else x
