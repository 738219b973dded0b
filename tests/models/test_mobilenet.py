"""FaceRes's age network against the graph that TensorFlow.js runs."""

import jax
import jax.numpy as jnp
import numpy as np

from diffcf_jax.models.mobilenet import MobileNetAge
from tests import seeded


def test_ages_equal_the_original():
    module, variables = seeded.converted("faceres-age", "faceres-age")
    assert (module.width, module.hidden, module.ages) == (4, 32, 100)
    x = seeded.images(2, 64, 64, 3) / np.float32(255)
    found = jax.jit(module.apply)(variables, x)
    np.testing.assert_allclose(found, seeded.golden("faceres-age")["ages"], rtol=1e-5)


def test_full_size_has_the_originals_parameters():
    variables = jax.eval_shape(MobileNetAge().init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    # The file has 13,957,620 bytes of float32, of which the other head takes 257 numbers, bounds of
    # activations 54, axes of the mean 2.
    count = sum(a.size for a in jax.tree.leaves(variables))
    assert 4 * (count + 257 + 54 + 2) == 13_957_620
