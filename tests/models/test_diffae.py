"""The Diff-AE's networks."""

import jax
import jax.numpy as jnp
import numpy as np

from diffcf_jax.models.diffae import DiffAE
from tests.models.test_unet import with_noise

SHARED = {"channels": 32, "channel_mult": (1, 1), "num_res_blocks": 1, "attention_downsampling": ()}
NETWORK = DiffAE(
    unet={**SHARED, "out_channels": 3, "emb_channels": 16},
    encoder={**SHARED, "z_channels": 16},
)


def test_the_code_reaches_the_output_and_no_other_image():
    x, x_t = jax.random.normal(jax.random.key(0), (2, 2, 8, 8, 3))
    t = jnp.array([10, 900])
    variables = with_noise(jax.jit(NETWORK.init)(jax.random.key(1), x, x_t, t))
    assert sorted(variables["params"]) == ["encoder", "unet"]

    @jax.jit
    def run(x, x_t, z=None):
        encoded = NETWORK.apply(variables, x, method=DiffAE.encode)
        z = encoded if z is None else z
        return encoded, NETWORK.apply(variables, x_t, t, z, method=DiffAE.predict)

    z, output = run(x, x_t)
    assert z.shape == (2, 16) and output.shape == x.shape
    whole = jax.jit(NETWORK.apply)(variables, x, x_t, t)
    np.testing.assert_allclose(whole, output, atol=1e-5)
    _, changed = run(x, x_t, z.at[1].add(0.5))
    np.testing.assert_allclose(changed[0], output[0], atol=1e-5)
    assert jnp.abs(changed[1] - output[1]).max() > 0.01
