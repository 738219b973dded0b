"""LPIPS against torchmetrics on all three classifiers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffcf_jax.models.lpips import LPIPS
from tests import seeded


@pytest.mark.parametrize("backbone", ["alex", "vgg", "squeeze"])
def test_distances_equal_torchmetrics(backbone):
    module, variables = seeded.converted("lpips", f"lpips_{backbone}")
    assert (module.backbone, module.width) == (backbone, 8)
    x, y = seeded.images(2, 2, 64, 72, 3)
    x, y = x / np.float32(255), y // 4 / np.float32(255)
    found = jax.jit(lambda x, y: module.apply(variables, x, y))(x, y)
    np.testing.assert_allclose(found, seeded.golden(f"lpips_{backbone}")["distances"], rtol=1e-5)


@pytest.mark.parametrize(
    "backbone, parameters", [("alex", 2_470_848), ("vgg", 14_716_160), ("squeeze", 724_736)]
)
def test_full_size_has_the_originals_parameters(backbone, parameters):
    x = jnp.zeros((1, 64, 64, 3))
    variables = jax.eval_shape(LPIPS(backbone).init, jax.random.key(0), x, x)
    assert sum(a.size for a in jax.tree.leaves(variables)) == parameters
