"""Identity and attribute networks against the originals, from the image to the features."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffcf_jax.checkpoint.convert import import_network
from diffcf_jax.checkpoint.network import build_module
from diffcf_jax.models.caffe_resnet import CaffeResNet, mnac_input, vggface2_input

GOLDEN = Path(__file__).parents[1] / "golden"
DTYPES = pytest.mark.parametrize("dtype, suffix", [("float32", ""), ("float64", "_f64")])


def load(kind, folder):
    description, variables = import_network(kind, dict(np.load(GOLDEN / folder / "weights.npz")))
    return build_module(description), variables, np.load(GOLDEN / folder / "io.npz")


@DTYPES
def test_identity_features_equal_the_original(dtype, suffix):
    module, variables, io = load("vggface2", "fva_a")
    with jax.enable_x64(True):
        variables = jax.tree.map(lambda a: jnp.asarray(a, dtype), variables)
        features = {}
        apply = jax.jit(module.apply)
        for name in ("real", "cf"):
            x = vggface2_input(jnp.asarray(io[name].transpose(0, 2, 3, 1), dtype))
            features[name] = apply(variables, x)
            if name == "real":
                expected = io["transformed_stride7" + suffix].transpose(0, 2, 3, 1)
                atol = 2e-3 if dtype == "float32" else 1e-10  # of numbers up to 160
                np.testing.assert_allclose(x[:, ::7, ::7], expected, atol=atol)
            expected = io[f"features_{name}{suffix}"][:, :, 0, 0]
            rtol = 1e-5 if dtype == "float32" else 1e-12
            np.testing.assert_allclose(features[name], expected, rtol=rtol, atol=rtol)
        real, cf = features["real"][0], features["cf"][0]
        cosine = real @ cf / jnp.linalg.norm(real) / jnp.linalg.norm(cf)
    np.testing.assert_allclose(cosine, io["scores" + suffix][0, 1], rtol=1e-5)


@DTYPES
def test_attribute_scores_equal_the_original(dtype, suffix):
    module, variables, io = load("mnac", "mnac_a")
    with jax.enable_x64(True):
        variables = jax.tree.map(lambda a: jnp.asarray(a, dtype), variables)
        apply = jax.jit(lambda x: jax.nn.sigmoid(module.apply(variables, mnac_input(x))))
        for name in ("real", "cf"):
            scores = apply(jnp.asarray(io[f"{name}_u8"].transpose(0, 2, 3, 1) / 255, dtype))
            # The original's own float32 is 4e-5 away from its float64.
            atol = 1e-4 if dtype == "float32" else 1e-11
            np.testing.assert_allclose(scores, io[f"out_{name}{suffix}"], rtol=0, atol=atol)


def test_full_size_has_the_originals_parameters():
    x = jnp.zeros((1, 224, 224, 3))
    for outputs, parameters in ((None, 23_508_032), (40, 23_589_992)):
        variables = jax.eval_shape(CaffeResNet(outputs=outputs).init, jax.random.key(0), x)
        assert sum(a.size for a in jax.tree.leaves(variables["params"])) == parameters


def test_mnac_input_once_is_twice_the_image_minus_one():
    x = jnp.full((1, 224, 224, 3), 0.25)
    np.testing.assert_allclose(mnac_input(x, normalisations=1), -0.5, atol=1e-6)
    np.testing.assert_allclose(mnac_input(x), -2.0, atol=1e-6)
