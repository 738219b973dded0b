"""The latent DPM against the original's output."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffcf_jax.checkpoint.convert import import_network
from diffcf_jax.checkpoint.network import build_module

GOLDEN = Path(__file__).parents[1] / "golden" / "latent_dpm"


@pytest.mark.parametrize("dtype, suffix, rtol", [("float32", "", 1e-5), ("float64", "_f64", 1e-12)])
def test_equals_the_original(dtype, suffix, rtol):
    weights = dict(np.load(GOLDEN / "weights.npz"))
    description, variables = import_network("latent-dpm", weights)
    module = build_module(description)
    io = np.load(GOLDEN / "io.npz")
    with jax.enable_x64(True):
        variables = jax.tree.map(lambda a: jnp.asarray(a, dtype), variables)
        eps = module.apply(variables, jnp.asarray(io["x"], dtype), jnp.asarray(io["t"]))
        z = module.apply(variables, jnp.asarray(io["x"], dtype), method="normalize")
        back = module.apply(variables, z, method="denormalize")
    assert eps.dtype == dtype
    expected = io["out" + suffix]
    np.testing.assert_allclose(eps, expected, rtol=0, atol=rtol * np.abs(expected).max())
    expected = (io["x"] - weights["conds_mean"]) / weights["conds_std"]
    np.testing.assert_allclose(z, expected, rtol=1e-5)
    np.testing.assert_allclose(back, io["x"], rtol=1e-5, atol=1e-6)
