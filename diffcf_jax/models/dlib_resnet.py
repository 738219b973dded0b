"""dlib's face recognition network: embeddings that are near for one person, far for two."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffcf_jax.models.convnet import Affine
from diffcf_jax.models.resize import resize_tensorflow1
from diffcf_jax.models.tiny_xception import MEAN_RGB

IMAGE_SIZE = 150


class ConvAffine(nn.Module):
    """A 3x3 convolution and a scale and shift of each channel; with a stride nothing is padded."""

    features: int
    stride: int = 1
    size: int = 3

    @nn.compact
    def __call__(self, x: Float[Array, "b _ _ _"]) -> Float[Array, "b _ _ {self.features}"]:
        """Map [B, H, W, C] to [B, H', W', features]."""
        padding = "SAME" if self.stride == 1 else "VALID"
        kernel, strides = (self.size, self.size), (self.stride, self.stride)
        h = nn.Conv(self.features, kernel, strides=strides, padding=padding, name="conv")(x)
        return Affine(name="scale")(h)


class DlibBlock(nn.Module):
    """Two convolutions around a shortcut, which has no weights.

    With `down` the size halves: the shortcut is a mean of 2x2 pixels, and zeros for channels that
    it has not and for a last row and column that the convolutions have not.
    """

    features: int
    down: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "b _ _ _"]) -> Float[Array, "b _ _ {self.features}"]:
        """Return relu(shortcut(x) + residual(x))."""
        h = nn.relu(ConvAffine(self.features, 2 if self.down else 1, name="conv1")(x))
        h = ConvAffine(self.features, name="conv2")(h)
        if self.down:
            x = nn.avg_pool(x, (2, 2), strides=(2, 2))
            x = jnp.pad(x, ((0, 0),) * 3 + ((0, h.shape[3] - x.shape[3]),))
            h = jnp.pad(h, ((0, 0), *((0, x.shape[i] - h.shape[i]) for i in (1, 2)), (0, 0)))
        return nn.relu(x + h)


class DlibResNet(nn.Module):
    """dlib's ResNet with 29 convolutions, as face-api has it.

    Attributes:
        width: channels of the stem and the first stage; each later stage doubles them.
        blocks: number of blocks without `down` in each of the four stages.
        outputs: size of the embedding.

    Source: the npm package @vladmandic/face-api 1.7.15, `face_recognition_model`; King 2017,
    http://blog.dlib.net/2017/02/high-quality-face-recognition-with-deep.html.
    """

    width: int = 32
    blocks: Sequence[int] = (3, 3, 2, 2)
    outputs: int = 128

    @nn.compact
    def __call__(self, x: Float[Array, "b 150 150 3"]) -> Float[Array, "b {self.outputs}"]:
        """Return embeddings, which are to be compared by their Euclidean distance.

        Photographs of one person are less than 0.6 apart, of two persons mostly more.

        Args:
            x: what `dlib_input` returns.
        """
        h = nn.relu(ConvAffine(self.width, 2, 7, name="conv32_down")(x))
        h = nn.max_pool(h, (3, 3), strides=(2, 2))
        for stage, count in enumerate(self.blocks):
            features, name = self.width * 2**stage, f"conv{32 * 2**stage}"
            if stage > 0:
                h = DlibBlock(features, True, name=f"{name}_down")(h)
            for block in range(1, count + 1):
                h = DlibBlock(features, name=f"{name}_{block}")(h)
        h = DlibBlock(features, True, name=f"{name}_down_out")(h)
        return nn.Dense(self.outputs, use_bias=False, name="embedding")(h.mean(axis=(1, 2)))


def dlib_input(x: Float[Array, "b _ _ 3"]) -> Float[Array, "b 150 150 3"]:
    """Prepare images as face-api does: 150 px as TensorFlow 1 resized, the mean colour subtracted.

    Args:
        x: aligned faces in [0, 1], R, G, B.
    """
    x = resize_tensorflow1(255 * x, IMAGE_SIZE, IMAGE_SIZE)
    return (x - jnp.asarray(MEAN_RGB, x.dtype)) / 255
