"""The DenseNet against the original's outputs and gradients, and its two heads."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffcf_jax.checkpoint.convert import import_network
from diffcf_jax.checkpoint.network import build_module
from diffcf_jax.models.densenet import DenseNet

GOLDEN = Path(__file__).parents[1] / "golden" / "densenet_a"


@pytest.mark.parametrize("dtype, suffix, rtol", [("float32", "", 1e-5), ("float64", "_f64", 1e-12)])
def test_equals_the_original(dtype, suffix, rtol):
    weights = dict(np.load(GOLDEN / "weights.npz"))
    description, variables = import_network("densenet-regressor", weights)
    module = build_module(description)
    io = np.load(GOLDEN / "io.npz")
    with jax.enable_x64(True):
        variables = jax.tree.map(lambda a: jnp.asarray(a, dtype), variables)
        x = jnp.asarray(io["x"].transpose(0, 2, 3, 1), dtype)
        y, gradient = jax.jit(jax.value_and_grad(lambda x: module.apply(variables, x).sum()))(x)
    assert y.dtype == gradient.dtype == dtype
    np.testing.assert_allclose(y, io["out" + suffix].sum(), rtol=rtol)
    expected = io["grad_sum" + suffix].transpose(0, 2, 3, 1)
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=rtol * np.abs(expected).max())


def test_full_size_has_the_originals_parameters():
    variables = jax.eval_shape(DenseNet().init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    assert sum(a.size for a in jax.tree.leaves(variables["params"])) == 6_954_881


def test_heads_and_normalisation():
    small = {"growth": 4, "blocks": (1, 1), "init_features": 8}
    x = jax.random.uniform(jax.random.key(0), (2, 32, 32, 3))
    regressor = DenseNet(**small)
    y, variables = jax.jit(regressor.init_with_output)(jax.random.key(1), x)
    assert y.shape == (2,)
    # (x - mu) / sigma happens inside: the same image in other units gives the same value.
    shifted = DenseNet(**small, mu=(127.5,) * 3, sigma=(127.5,) * 3)
    np.testing.assert_allclose(jax.jit(shifted.apply)(variables, 255 * x), y, rtol=1e-4)
    classifier = DenseNet(**small, outputs=3)
    logits, _ = jax.eval_shape(classifier.init_with_output, jax.random.key(1), x)
    assert logits.shape == (2, 3)


def test_one_image_under_vmap_reads_as_without():
    # Sizes at which XLA's CPU compiler took a pooled convolution for another one.
    module = DenseNet(blocks=(6, 12, 24))
    x = np.random.default_rng(0).random((1, 256, 256, 3), np.float32)
    variables = jax.jit(module.init)(jax.random.key(0), x)
    expected = jax.jit(module.apply)(variables, x)
    one = jax.vmap(lambda image: module.apply(variables, image[None])[0])
    np.testing.assert_allclose(jax.jit(one)(x), expected, rtol=1e-4)
