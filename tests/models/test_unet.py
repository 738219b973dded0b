"""The ADM UNet: the original's outputs and gradients, and what its flags change."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffcf_jax.models.unet import UNet

TINY = {
    "channels": 32, "channel_mult": (1, 1), "num_res_blocks": 1, "attention_downsampling": (2,),
    "out_channels": 3,
}  # fmt: skip
X = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
T = jnp.array([3, 700])


def with_noise(variables, scale=0.1):
    random = np.random.default_rng(1)
    return jax.tree.map(
        lambda leaf: (
            np.asarray(leaf) + np.float32(scale) * random.normal(size=leaf.shape).astype("f4")
        ),
        variables,
    )


@pytest.fixture(scope="module")
def variables():
    return with_noise(jax.jit(UNet(**TINY).init)(jax.random.key(0), X, T))


def test_a_fresh_network_predicts_zeros():
    output, _ = jax.jit(UNet(**TINY).init_with_output)(jax.random.key(0), X, T)
    assert output.shape == (2, 8, 8, 3)
    np.testing.assert_array_equal(output, 0)


def test_without_a_geometry_the_network_is_the_one_that_knows_of_none(variables):
    told = UNet(**TINY, geometry_channels=4)
    kernel = np.random.default_rng(0).normal(size=(4, 32)).astype("f4")
    knowing = {"params": {**variables["params"], "geometry_embed": {"kernel": kernel}}}
    apply = jax.jit(told.apply)
    plain = jax.jit(UNet(**TINY).apply)(variables, X, T)
    np.testing.assert_allclose(apply(knowing, X, T), plain, atol=1e-6)
    turned = apply(knowing, X, T, geometry=jnp.ones((2, 4)))
    assert float(jnp.abs(turned - plain).max()) > 1e-3


def test_remat_changes_nothing(variables):
    def loss(x, remat):
        return jnp.sum(jnp.square(UNet(**TINY, remat=remat).apply(variables, x, T)))

    values = [jax.jit(jax.value_and_grad(lambda x, r=r: loss(x, r)))(X) for r in (False, True)]
    np.testing.assert_allclose(values[0][0], values[1][0], rtol=1e-6)
    np.testing.assert_allclose(values[0][1], values[1][1], atol=1e-4)


def test_half_precision_keeps_the_output_in_float32(variables):
    exact = jax.jit(UNet(**TINY).apply)(variables, X, T)
    half = jax.jit(UNet(**TINY, dtype=jnp.bfloat16).apply)(variables, X, T)
    assert half.dtype == jnp.float32
    error = jnp.linalg.norm(half - exact) / jnp.linalg.norm(exact)
    assert 1e-5 < error < 0.05


def test_images_do_not_meet(variables):
    apply = jax.jit(UNet(**TINY).apply)
    both = apply(variables, X, T)
    each = [apply(variables, X[i : i + 1], T[i : i + 1])[0] for i in range(2)]
    np.testing.assert_allclose(both, each, atol=1e-5)


def test_patches_keep_the_size_of_the_image():
    network = UNet(**{**TINY, "channel_mult": (1,), "out_channels": 6}, patch_size=2)
    variables = with_noise(jax.jit(network.init)(jax.random.key(0), X, T))
    assert variables["params"]["input_blocks_0_0"]["kernel"].shape == (3, 3, 12, 32)
    output = jax.jit(network.apply)(variables, X, T)
    assert output.shape == (2, 8, 8, 6)
    assert output.std() > 0.01
