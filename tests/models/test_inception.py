"""FID's Inception against torch-fidelity's, from the image to the features."""

import jax
import jax.numpy as jnp
import numpy as np

from diffcf_jax.models.inception import InceptionV3, inception_input
from tests import seeded


def test_features_equal_torch_fidelity():
    module, variables = seeded.converted("inception", "inception")
    assert module.width == 4
    # Wider than the network's images, and less high
    x = seeded.images(2, 40, 320, 3) / np.float32(255)
    found = jax.jit(lambda x: module.apply(variables, inception_input(x)))(x)
    expected = seeded.golden("inception")["features"]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_full_size_has_the_originals_parameters():
    x = jnp.zeros((1, 299, 299, 3))
    variables = jax.eval_shape(InceptionV3().init, jax.random.key(0), x)
    # torch-fidelity's without the 1008 classes
    count = sum(a.size for a in jax.tree.leaves(variables["params"]))
    assert count == 23_850_960 - 2048 * 1008 - 1008


def test_saved_images_keep_their_levels():
    """What `(x * 255).to(uint8)` cuts off is nothing where x is a level divided by 255."""
    x = (np.arange(256) / 255).astype(np.float32).reshape(1, 1, 256, 1)
    x = np.broadcast_to(x, (1, 1, 256, 3))
    first = inception_input(x)[0, 0, :, 0] * 128 + 128
    assert np.abs(first - np.arange(299) * 256 / 299)[:298].max() < 1e-3
    between = inception_input(np.full((1, 4, 4, 3), 10.9 / 255, np.float32))
    np.testing.assert_allclose(between * 128 + 128, 10, atol=1e-5)
