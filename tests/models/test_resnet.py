"""The ResNet against the original's outputs and gradients, and its training statistics."""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffcf_jax.checkpoint.convert import import_network
from diffcf_jax.checkpoint.network import build_module
from diffcf_jax.models.resnet import ResNet

GOLDEN = Path(__file__).parents[1] / "golden" / "resnet_a"


@pytest.fixture(scope="module")
def network():
    description, variables = import_network(
        "resnet-regressor", dict(np.load(GOLDEN / "weights.npz"))
    )
    return build_module(description), variables


@pytest.mark.parametrize("dtype, suffix, rtol", [("float32", "", 1e-5), ("float64", "_f64", 1e-12)])
def test_equals_the_original(network, dtype, suffix, rtol):
    module, variables = network
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
    variables = jax.eval_shape(ResNet().init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    assert sum(a.size for a in jax.tree.leaves(variables["params"])) == 11_170_689


def test_without_a_pool_and_with_a_hidden_layer():
    module = ResNet(width=4, blocks=(1, 1), max_pool=False, hidden=8)
    x = jax.random.uniform(jax.random.key(0), (3, 16, 16, 3))
    variables = jax.jit(module.init)(jax.random.key(1), x)
    capture = partial(module.apply, capture_intermediates=True)
    y, found = jax.jit(capture)(variables, x)
    found = found["intermediates"]
    assert found["layer1_0"]["__call__"][0].shape == (3, 17, 17, 4)  # the stem's resolution
    pooled = found["layer2_0"]["__call__"][0].mean((1, 2))
    params = variables["params"]
    h = jax.nn.relu(pooled @ params["hidden"]["kernel"] + params["hidden"]["bias"])
    expected = h @ params["fc"]["kernel"] + params["fc"]["bias"]
    np.testing.assert_allclose(y, expected[:, 0], rtol=1e-5)


def test_circular_predicts_the_same_wherever_something_is():
    x = jax.random.uniform(jax.random.key(0), (2, 16, 16, 3))
    rolled = jnp.roll(x, (8, -4), (1, 2))  # multiples of the stride: the same pixels meet
    arguments = dict(width=4, blocks=(1, 1), stem_stride=2, stem_padding=1, max_pool=False)
    errors = []
    for circular in (True, False):
        module = ResNet(**arguments, circular=circular)
        variables = jax.jit(module.init)(jax.random.key(1), x)
        y, y_rolled = (jax.jit(module.apply)(variables, images) for images in (x, rolled))
        errors.append(float(jnp.abs(y - y_rolled).max()))
    assert errors[0] < 1e-6 < 1e-4 < errors[1]


def test_training_uses_the_batch_and_averages_its_statistics():
    module = ResNet(width=4, blocks=(1, 1))
    x = jax.random.uniform(jax.random.key(0), (3, 16, 16, 3))
    variables = jax.jit(module.init)(jax.random.key(1), x)
    apply = jax.jit(partial(module.apply, train=True, mutable=["batch_stats"]))
    y, updated = apply(variables, x)
    assert y.shape == (3,)
    stem = jax.lax.conv_general_dilated(
        x,
        variables["params"]["conv1"]["kernel"],
        (1, 1),
        ((2, 2), (2, 2)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    assert stem.shape == (3, 17, 17, 4)
    stats = updated["batch_stats"]["bn1"]
    np.testing.assert_allclose(stats["mean"], 0.1 * stem.mean((0, 1, 2)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(stats["var"], 0.9 + 0.1 * stem.var((0, 1, 2)), rtol=1e-4)
    assert not np.allclose(y, jax.jit(module.apply)(variables, x))


def test_bfloat16_computes_low_and_normalises_high(network):
    module, variables = network
    x = np.load(GOLDEN / "io.npz")["x"].transpose(0, 2, 3, 1)
    low = module.clone(dtype=jnp.bfloat16)
    apply = partial(low.apply, train=True, capture_intermediates=True, mutable=True)
    y, seen = jax.eval_shape(apply, variables, x)
    assert y.dtype == jnp.float32
    assert seen["intermediates"]["conv1"]["__call__"][0].dtype == jnp.bfloat16
    assert all(a.dtype == jnp.float32 for a in jax.tree.leaves(seen["batch_stats"]))
    y = jax.jit(low.apply)(variables, x)
    np.testing.assert_allclose(y, np.load(GOLDEN / "io.npz")["out"][:, 0], atol=0.05)
