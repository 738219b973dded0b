"""What the options of a method do to its networks, and the refusal of wrong ones."""

import dataclasses
import re
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffcf_jax.checkpoint.network import Network, build_module, init_variables
from diffcf_jax.counterfactual.methods import method_options
from diffcf_jax.counterfactual.types import Query
from diffcf_jax.errors import UserError
from diffcf_jax.flops import count_flops
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
    """A method's name, its generator without zeros in it, and an image."""
    name = request.param
    variables = init_variables(DESCRIPTIONS[name], jax.random.key(0))
    leaves, tree = jax.tree.flatten(variables)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    noise = [0.05 * jax.random.normal(k, v.shape) for k, v in zip(keys, leaves, strict=True)]
    variables = jax.tree.unflatten(tree, [v + n for v, n in zip(leaves, noise, strict=True)])
    network = Network(DESCRIPTIONS[name], build_module(DESCRIPTIONS[name]), variables)
    return name, network, 0.25 + 0.5 * jax.random.uniform(jax.random.key(2), (64, 64, 3))


def gradient(name, network, image, **options):
    """The prediction, the gradient of the loss, and what they cost."""
    method = method_options(name, {**OPTIONS[name], **options}).bind(network, regressor)
    params = {"generator": network.variables, "regressor": {}}
    noises = jax.random.normal(jax.random.key(4), (3, *image.shape))

    def ac_re(params, image):
        keep = jnp.zeros((64, 64, 1))
        return method.attack_gradient(params, image, Query.of(image, 0.9), noises, keep)[1:]

    def diffae_re(params, image):
        z = jnp.linspace(-1, 1, 8)
        state = SimpleNamespace(query=Query.of(image, 0.9), x_T=noises[0], z=z, z_0=z)
        _, decoded, found = method.latent_gradient(params, state)
        return regressor({}, decoded[None])[0], found

    function = ac_re if name == "ac-re" else diffae_re
    y_hat, found = jax.jit(function)(params, image)
    return y_hat, found, count_flops(function, params, image)


@pytest.fixture(scope="module")
def usual(setting):
    """With the default options: no product is recomputed, float32."""
    return gradient(*setting)


def test_recomputation_changes_the_cost_only(setting):
    """In float64: rounding decides which x_0 are clipped, and their gradient is 0."""
    name, network, image = setting
    with jax.enable_x64(True):
        double = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), network.variables)
        network = Network(network.description, network.module, double)
        image = np.asarray(image, np.float64)
        none, step, block = (
            gradient(name, network, image, remat=remat) for remat in ("none", "step", "block")
        )
    assert none[2] < step[2] < block[2]
    for other in (step, block):
        np.testing.assert_allclose(other[0], none[0], rtol=1e-12)
        np.testing.assert_allclose(other[1], none[1], atol=1e-12 * np.abs(none[1]).max())


def test_half_precision_is_close(setting, usual):
    y_hat, found, _ = gradient(*setting, precision="bfloat16")
    assert found.dtype == y_hat.dtype == jnp.float32
    assert 0 < abs(y_hat - usual[0]) < 0.01
    error = jnp.linalg.norm(found - usual[1]) / jnp.linalg.norm(usual[1])
    assert 1e-4 < error < 0.1


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("ac-re", {"remat": "all"}, "remat='all' must be one of none, step, block"),
        ("ac-re", {"remat": True}, "remat=True must be one of"),
        ("ac-re", {"precision": "float16"}, "precision='float16' must be one of float32, bfloat16"),
        ("ac-re", {"iterations": 0}, "iterations=0 must be a whole number from 1 to 100,000"),
        ("ac-re", {"iterations": 10**12}, "iterations=10*0 must be a whole number from 1 to"),
        ("ac-re", {"iterations": True}, "iterations=True must be a whole number"),
        ("ac-re", {"tau": 2.5}, "tau=2.5 must be a whole number"),
        ("ac-re", {"tau": 21}, "tau=21 must lie between 1 and 20 respaced steps"),
        ("ac-re", {"dilation": 4}, "dilation=4 must be an odd whole number"),
        ("ac-re", {"threshold": float("nan")}, "threshold=nan must be a finite number, 0 or more"),
        ("ac-re", {"step_size": 0.0}, "step_size=0.0 must be a finite number above 0"),
        (
            "ac-re",
            {"step_size": 0.01},
            f"step_size=0.01 has no effect with solver=newton: leave it at {2 / 255!r}, or set "
            "solver=pgd",
        ),
        ("ac-re", {"solver": "pgd", "answers": 2}, "answers=2 has no effect with"),
        ("ac-re", {"gradient_floor": 2.0}, "gradient_floor=2.0 must be a number from 0 to 1"),
        ("ac-re", {"respacing": "ten"}, "respacing='ten': The respacing 'ten' is not understood"),
        ("ac-re", {"taus": 3}, "taus is no option of ac-re: did you mean tau"),
        ("ac-re", {"colour": 3}, "colour is no option of ac-re: choose from iterations, "),
        ("hybrid", {"share": 1.5}, "share=1.5 must be a number from 0 to 1"),
        ("hybrid", {"border": 4}, "border=4 must be an odd whole number"),
        ("ac", {}, "name='ac' is no method; choose one of ac-re, diffae-re, hybrid"),
        ("diffae-re", {"distance": "l7"}, "distance='l7' must be one of l1, l2"),
        ("diffae-re", {"distance_space": "image"}, "distance_space='image' must be one of latent"),
        (
            "diffae-re",
            {"learning_rate": 0.03},
            "learning_rate=0.03 has no effect with solver=newton",
        ),
        ("diffae-re", {"distance_weight": 1e-5}, "distance_weight=1e-05 has no effect with solver"),
        ("diffae-re", {"solver": "adam", "slide": 0}, "slide=0 has no effect with solver=adam: "),
        ("diffae-re", {"decode_steps": 60}, "decode_steps=60: No integer stride takes exactly 60"),
    ],
)
def test_wrong_options(name, options, message):
    description = DESCRIPTIONS.get(name, tiny.DDPM)
    network = Network(description, build_module(description), {})
    with pytest.raises(UserError, match="^" + re.sub("[.]", "[.]", message)):
        method_options(name, {**OPTIONS.get(name, {}), **options}).bind(network, regressor)


def test_an_option_goes_with_its_solver():
    assert method_options("ac-re", {"solver": "pgd", "step_size": 0.01}).step_size == 0.01
    assert method_options("diffae-re", {"solver": "newton", "slide": 0}).slide == 0
    adam = method_options("diffae-re", {"solver": "adam", "learning_rate": 0.03})
    assert adam.learning_rate == 0.03 and dataclasses.asdict(adam)["slide"] == 3


def test_a_generator_of_another_kind_is_refused():
    network = Network(tiny.DDPM, build_module(tiny.DDPM), {})
    with pytest.raises(UserError, match="diffae-re needs a generator of kind diffae"):
        method_options("diffae-re", {}).bind(network, regressor)
