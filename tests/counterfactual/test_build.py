"""What the options of a method do to its networks, and the refusal of wrong ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffcf_jax.checkpoint.network import Network, build_module, init_variables
from diffcf_jax.counterfactual.build import build_method
from diffcf_jax.counterfactual.flops import count_flops
from diffcf_jax.errors import UserError
from tests import tiny

OPTIONS = {
    "ac-re": {"respacing": "20", "tau": 3, "threshold": 0.0, "iterations": 3},
    "diffae-re": {"inversion_steps": 5, "decode_steps": 4, "threshold": 0.0, "iterations": 3},
}
DESCRIPTIONS = {"ac-re": tiny.DDPM, "diffae-re": tiny.DIFFAE}


def regressor(variables, images):
    """The mean of red in the upper half."""
    del variables
    return images[:, :32, :, 0].mean((1, 2))


@pytest.fixture(scope="module", params=OPTIONS)
def setting(request):
    """A method's name, its generator without zeros in it, an image and the gradient of the loss."""
    name = request.param
    variables = init_variables(DESCRIPTIONS[name], jax.random.key(0))
    leaves, tree = jax.tree.flatten(variables)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    noise = [0.05 * jax.random.normal(k, v.shape) for k, v in zip(keys, leaves, strict=True)]
    variables = jax.tree.unflatten(tree, [v + n for v, n in zip(leaves, noise, strict=True)])
    network = Network(DESCRIPTIONS[name], build_module(DESCRIPTIONS[name]), variables)
    return name, network, 0.25 + 0.5 * jax.random.uniform(jax.random.key(2), (64, 64, 3))


def gradient(name, network, image, **options):
    """The gradient of the first iteration and the prediction, and how they were computed."""
    method = build_method(name, network, regressor, {**OPTIONS[name], **options})
    params = {"generator": network.variables, "regressor": {}}

    def first(params, image):
        state = method.init(params, image, jnp.float32(0.9), jax.random.key(3))
        if name == "diffae-re":
            return *method.latent_gradient(params, state)[1:], state.z
        noises = jax.random.normal(jax.random.key(4), (3, *image.shape))
        _, y_hat, found = method.attack_gradient(
            params, image, state.aim, noises, image, state.keep
        )
        return (image, y_hat), found, state.x_adv

    (_, y_hat), found, _ = jax.jit(first)(params, image)
    return y_hat, found, count_flops(first, params, image)


def test_recomputation_changes_the_cost_only(setting):
    y_hat, exact, flops = gradient(*setting, remat="none")
    for remat in ("step", "block"):
        other_y_hat, other, other_flops = gradient(*setting, remat=remat)
        np.testing.assert_allclose(other_y_hat, y_hat, rtol=1e-5)
        np.testing.assert_allclose(other, exact, atol=2e-5 * jnp.abs(exact).max())
        assert other_flops > flops
        flops = other_flops


def test_half_precision_is_close(setting):
    y_hat, exact, _ = gradient(*setting)
    half_y_hat, half, _ = gradient(*setting, precision="bfloat16")
    assert half.dtype == half_y_hat.dtype == jnp.float32
    assert 0 < abs(half_y_hat - y_hat) < 0.01
    error = jnp.linalg.norm(half - exact) / jnp.linalg.norm(exact)
    assert 1e-4 < error < 0.1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"remat": "all"}, r"Unknown config\.method\.remat='all'; choose none, step, block"),
        ({"remat": True}, r"Unknown config\.method\.remat=True"),
        (
            {"precision": "float16"},
            r"config\.method\.precision='float16'; choose float32, bfloat16",
        ),
    ],
)
def test_wrong_options(options, message):
    network = Network(tiny.DDPM, build_module(tiny.DDPM), {})
    with pytest.raises(UserError, match=message):
        build_method("ac-re", network, regressor, {**OPTIONS["ac-re"], **options})
