"""dlib's identity network against the JavaScript of face-api."""

import jax
import jax.numpy as jnp
import numpy as np

from diffcf_jax.models.dlib_resnet import DlibResNet, dlib_input
from tests import seeded


def test_embeddings_equal_the_original():
    module, variables = seeded.converted("face-api-identity", "face-api-identity")
    assert (module.width, tuple(module.blocks), module.outputs) == (4, (3, 3, 2, 2), 16)
    x = seeded.images(2, 64, 64, 3) / np.float32(255)
    found = jax.jit(lambda x: module.apply(variables, dlib_input(x)))(x)
    expected = np.array(seeded.golden("face-api-identity")["embeddings"])
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_full_size_has_the_originals_parameters():
    variables = jax.eval_shape(DlibResNet().init, jax.random.key(0), jnp.zeros((1, 150, 150, 3)))
    # The file has 6,444,032 bytes: one for each number, three more in 7 convolutions of 64 channels
    # from 64 and one from 32.
    count = sum(a.size for a in jax.tree.leaves(variables))
    assert count + 3 * 9 * 64 * (7 * 64 + 32) == 6_444_032
