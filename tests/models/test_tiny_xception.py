"""face-api's age network against its JavaScript."""

import jax
import jax.numpy as jnp
import numpy as np

from diffcf_jax.models.tiny_xception import TinyXception
from tests import seeded


def test_ages_equal_the_original():
    module, variables = seeded.converted("face-api-age", "face-api-age")
    assert (module.width, module.blocks) == (4, 2)
    x = seeded.images(2, 64, 64, 3) / np.float32(255)
    found = jax.jit(module.apply)(variables, x)
    np.testing.assert_allclose(found, seeded.golden("face-api-age")["ages"], rtol=1e-5)


def test_full_size_has_the_originals_parameters():
    variables = jax.eval_shape(TinyXception().init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    # The file has 429,708 bytes: one for each weight but four for each of the 3,105 biases, and
    # 1,034 for the other head.
    count = sum(a.size for a in jax.tree.leaves(variables))
    biases = sum(a.size for path, a in jax.tree_util.tree_leaves_with_path(variables)
                 if path[-1].key == "bias")  # fmt: skip
    assert count + 3 * biases + 2 * 512 + 2 * 4 == 429_708
