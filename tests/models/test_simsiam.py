"""SimSiam's encoder against the original's."""

import jax
import jax.numpy as jnp
import numpy as np

from diffcf_jax.models.simsiam import SimSiam, simsiam_input
from tests import seeded


def test_features_equal_the_original():
    module, variables = seeded.converted("simsiam", "simsiam")
    assert (module.width, list(module.blocks)) == (8, [3, 4, 6, 3])
    x = seeded.images(2, 2, 64, 72, 3)[0] / np.float32(255)
    found = jax.jit(lambda x: module.apply(variables, simsiam_input(x)))(x)
    expected = np.array(seeded.golden("simsiam")["features"])
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def test_full_size_has_the_originals_parameters():
    variables = jax.eval_shape(SimSiam().init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    # A ResNet-50 without its classes, and three layers of which two have a scale and a shift
    count = sum(a.size for a in jax.tree.leaves(variables["params"]))
    assert count == 23_508_032 + 3 * 2048**2 + 2048 + 2 * 2 * 2048
