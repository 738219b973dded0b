import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from diffcf_jax.checkpoint.network import build_module
from diffcf_jax.training.frechet import features, frechet_distance
from tests import tiny


@pytest.mark.parametrize("n", [40, 5])  # 5: fewer samples than dimensions
def test_the_formula(n):
    random = np.random.default_rng(0)
    a, b = random.normal(size=(n, 8)), 2 * random.normal(size=(n, 8)) + 1
    covariances = [np.cov(x, rowvar=False) for x in (a, b)]
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1]).real
    wanted = np.sum((a.mean(0) - b.mean(0)) ** 2)
    wanted += np.trace(covariances[0] + covariances[1] - 2 * root)
    assert frechet_distance(a, b) == pytest.approx(wanted, rel=1e-3)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)


def test_features_are_what_the_head_sees():
    module = build_module(tiny.REGRESSOR)
    variables = tiny.variables(tiny.REGRESSOR)
    images = jax.random.uniform(jax.random.key(1), (2, 64, 64, 3))
    found = jax.jit(lambda variables: features(module, variables, images))(variables)
    head = variables["params"]["fc"]
    predictions = jnp.dot(found, head["kernel"])[:, 0] + head["bias"][0]
    wanted = jax.jit(module.apply)(variables, images)
    np.testing.assert_allclose(predictions, wanted, rtol=1e-6)
