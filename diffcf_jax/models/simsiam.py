"""SimSiam's encoder: features of a ResNet-50 that was trained without labels."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffcf_jax.models.caffe_resnet import Bottleneck
from diffcf_jax.models.convnet import batch_norm, conv

# ImageNet's, as torchvision has them
_MEAN = np.float32((0.485, 0.456, 0.406))
_DEVIATION = np.float32((0.229, 0.224, 0.225))


class SimSiam(nn.Module):
    """ResNet-50 and the projection of Chen and He 2021 (arXiv:2011.10566), for inference.

    The predictor, which follows in training, is not part of it.

    Attributes:
        width: channels of the stem.
        blocks: number of bottlenecks in each stage.
    """

    width: int = 64
    blocks: Sequence[int] = (3, 4, 6, 3)

    @nn.compact
    def __call__(self, x: Float[Array, "b h w 3"]) -> Float[Array, "b 32*{self.width}"]:
        """Return the projected features of what `simsiam_input` returns."""
        h = nn.relu(batch_norm(False, None, "bn1")(conv(self.width, 7, 2, 3, None, "conv1")(x)))
        h = nn.max_pool(h, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
        for stage, count in enumerate(self.blocks):
            for block in range(count):
                stride = 2 if stage > 0 and block == 0 else 1
                name = f"layer{stage + 1}_{block}"
                h = Bottleneck(self.width * 2**stage, stride, caffe=False, name=name)(h)
        h = h.mean(axis=(1, 2))
        size = h.shape[-1]
        for layer in (0, 3):
            h = nn.Dense(size, use_bias=False, name=f"fc_{layer}")(h)
            h = nn.relu(batch_norm(False, None, f"fc_{layer + 1}")(h))
        h = nn.Dense(size, name="fc_6")(h)
        return nn.BatchNorm(
            use_running_average=True, epsilon=1e-5, use_bias=False, use_scale=False, name="fc_7"
        )(h)


def simsiam_input(x: Float[Array, "b h w 3"]) -> Float[Array, "b h w 3"]:
    """Prepare images as ACE's evaluation does: ImageNet's normalisation, no resize.

    Args:
        x: images in [0, 1].
    """
    return (x - jnp.asarray(_MEAN, x.dtype)) / jnp.asarray(_DEVIATION, x.dtype)
