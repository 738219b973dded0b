"""Inception-v3 as the Fréchet Inception distance uses it (pt_inception-2015-12-05)."""

import functools

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffcf_jax.models.cpu.valid_conv import valid_conv
from diffcf_jax.models.resize import resize_tensorflow1

IMAGE_SIZE = 299

# One layer of a chain: its name, its channels in units, its kernel (1x1 if missing), its stride
Layer = tuple


class ConvNorm(nn.Module):
    """Convolution, batch norm with the epsilon of TensorFlow's network, relu."""

    features: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    padding: str = "SAME"

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b _ _ {self.features}"]:
        """Return the activations."""
        x = nn.Conv(
            self.features, self.kernel, self.stride, self.padding, use_bias=False,
            conv_general_dilated=valid_conv, name="conv",
        )(x)  # fmt: skip
        return nn.relu(nn.BatchNorm(use_running_average=True, epsilon=1e-3, name="bn")(x))


class Grid(nn.Module):
    """Mixed_5: four branches at 35x35, of which the last one has `pool` units."""

    unit: int
    pool: int

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w _"]:
        """Return the branches' channels."""
        run = functools.partial(_chain, self.unit)
        return _joined(
            run(x, ("branch1x1", 8)),
            run(x, ("branch5x5_1", 6), ("branch5x5_2", 8, (5, 5))),
            run(x, ("branch3x3dbl_1", 8), ("branch3x3dbl_2", 12, (3, 3)),
                ("branch3x3dbl_3", 12, (3, 3))),
            run(_average(x), ("branch_pool", self.pool)),
        )  # fmt: skip


class FirstReduction(nn.Module):
    """Mixed_6a: from 35x35 to 17x17."""

    unit: int

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b _ _ _"]:
        """Return the branches' channels."""
        run = functools.partial(_chain, self.unit)
        return _joined(
            run(x, ("branch3x3", 48, (3, 3), 2)),
            run(x, ("branch3x3dbl_1", 8), ("branch3x3dbl_2", 12, (3, 3)),
                ("branch3x3dbl_3", 12, (3, 3), 2)),
            nn.max_pool(x, (3, 3), (2, 2)),
        )  # fmt: skip


class Factorised(nn.Module):
    """Mixed_6b to 6e: 7x7 kernels as 1x7 and 7x1, between which there are `inner` units."""

    unit: int
    inner: int

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w _"]:
        """Return the branches' channels."""
        run, n = functools.partial(_chain, self.unit), self.inner
        return _joined(
            run(x, ("branch1x1", 24)),
            run(x, ("branch7x7_1", n), ("branch7x7_2", n, (1, 7)), ("branch7x7_3", 24, (7, 1))),
            run(x, ("branch7x7dbl_1", n), ("branch7x7dbl_2", n, (7, 1)),
                ("branch7x7dbl_3", n, (1, 7)), ("branch7x7dbl_4", n, (7, 1)),
                ("branch7x7dbl_5", 24, (1, 7))),
            run(_average(x), ("branch_pool", 24)),
        )  # fmt: skip


class SecondReduction(nn.Module):
    """Mixed_7a: from 17x17 to 8x8."""

    unit: int

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b _ _ _"]:
        """Return the branches' channels."""
        run = functools.partial(_chain, self.unit)
        return _joined(
            run(x, ("branch3x3_1", 24), ("branch3x3_2", 40, (3, 3), 2)),
            run(x, ("branch7x7x3_1", 24), ("branch7x7x3_2", 24, (1, 7)),
                ("branch7x7x3_3", 24, (7, 1)), ("branch7x7x3_4", 24, (3, 3), 2)),
            nn.max_pool(x, (3, 3), (2, 2)),
        )  # fmt: skip


class Forked(nn.Module):
    """Mixed_7b and 7c: 3x3 kernels as 1x3 beside 3x1; the last block takes maxima, not means."""

    unit: int
    maximum: bool

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w _"]:
        """Return the branches' channels."""
        run = functools.partial(_chain, self.unit)
        a = run(x, ("branch3x3_1", 48))
        b = run(x, ("branch3x3dbl_1", 56), ("branch3x3dbl_2", 48, (3, 3)))
        pooled = nn.max_pool(x, (3, 3), padding="SAME") if self.maximum else _average(x)
        return _joined(
            run(x, ("branch1x1", 40)),
            run(a, ("branch3x3_2a", 48, (1, 3))), run(a, ("branch3x3_2b", 48, (3, 1))),
            run(b, ("branch3x3dbl_3a", 48, (1, 3))), run(b, ("branch3x3dbl_3b", 48, (3, 1))),
            run(pooled, ("branch_pool", 24)),
        )  # fmt: skip


class InceptionV3(nn.Module):
    """Inception-v3 with the weights of 2015-12-05, up to the pooled features.

    It differs from torchvision's (Szegedy et al. 2016, arXiv:1512.00567): average pools leave the
    padding out, the last block pools by maxima, and the classes are 1008, which are not read here.

    Attributes:
        width: channels of the stem, a multiple of 4; 32 in the original.
    """

    width: int = 32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w 3"]) -> Float[Array, "b 64*{self.width}"]:
        """Return the features of what `inception_input` returns."""
        unit = self.width // 4
        h = ConvNorm(4 * unit, (3, 3), 2, "VALID", name="Conv2d_1a_3x3")(x)
        h = ConvNorm(4 * unit, (3, 3), 1, "VALID", name="Conv2d_2a_3x3")(h)
        h = ConvNorm(8 * unit, (3, 3), name="Conv2d_2b_3x3")(h)
        h = nn.max_pool(h, (3, 3), (2, 2))
        h = ConvNorm(10 * unit, name="Conv2d_3b_1x1")(h)
        h = ConvNorm(24 * unit, (3, 3), 1, "VALID", name="Conv2d_4a_3x3")(h)
        h = nn.max_pool(h, (3, 3), (2, 2))
        for name, pool in (("Mixed_5b", 4), ("Mixed_5c", 8), ("Mixed_5d", 8)):
            h = Grid(unit, pool, name=name)(h)
        h = FirstReduction(unit, name="Mixed_6a")(h)
        inner = (("Mixed_6b", 16), ("Mixed_6c", 20), ("Mixed_6d", 20), ("Mixed_6e", 24))
        for name, channels in inner:
            h = Factorised(unit, channels, name=name)(h)
        h = SecondReduction(unit, name="Mixed_7a")(h)
        h = Forked(unit, False, name="Mixed_7b")(h)
        h = Forked(unit, True, name="Mixed_7c")(h)
        return h.mean((1, 2))


def inception_input(x: Float[Array, "b _ _ 3"]) -> Float[Array, "b 299 299 3"]:
    """Prepare images for the network: (z - 128) / 128, z of 299 px in [0, 255].

    Values are cut to whole levels first, as `(255 * x).to(uint8)` does; saved images have only
    such. The resize is TensorFlow 1's, with which the network and FID were published.

    Args:
        x: images in [0, 1].
    """
    levels = jnp.floor(x * 255)
    return (resize_tensorflow1(levels, IMAGE_SIZE, IMAGE_SIZE) - 128) / 128


def _chain(unit: int, x: Array, *layers: Layer) -> Array:
    """Apply convolutions one after the other; one with a stride has no padding."""
    for name, units, *rest in layers:
        padding = "VALID" if len(rest) == 2 else "SAME"
        x = ConvNorm(units * unit, *rest, padding=padding, name=name)(x)
    return x


def _joined(*branches: Array) -> Array:
    return jnp.concatenate(branches, axis=-1)


def _average(x: Array) -> Array:
    """Means over 3x3 pixels, at the border of those that there are."""
    return nn.avg_pool(x, (3, 3), padding="SAME", count_include_pad=False)
