"""The ADM UNet: outputs, input gradient, timestep embedding, and statistics block by block."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffcf_jax.models.layers import timestep_embedding

from .golden import Golden, nchw
from .networks import compare_frequencies, load_original


def check(golden: Golden) -> None:
    """Compares a folder of kind `guided_diffusion.UNetModel`."""
    flags = golden.config["flags"]
    network = load_original(golden, "weights.npz", "ddpm", flags)
    x, t = golden.images("x"), golden.array("t")
    cotangent = golden.images("cotangent")

    @jax.jit
    def run(variables: Any, x: jax.Array, t: jax.Array) -> tuple[Any, Any, Any]:
        def forward(x: jax.Array) -> tuple[jax.Array, Any]:
            return network.module.apply(
                variables, x, t, capture_intermediates=True, mutable=["intermediates"]
            )

        out, vjp, state = jax.vjp(forward, x, has_aux=True)
        return out, vjp(cotangent)[0], state["intermediates"]

    out, grad_x, blocks = run(network.variables, x, jnp.asarray(t, jnp.int32))
    golden.compare_images("out", out, f32=3e-6)
    golden.compare_images("grad_x", grad_x, f32=2e-5)

    # Fractions of timesteps, as rescale_timesteps gives them
    fractions = jnp.asarray(t * 0.731, golden.dtype)
    out = jax.jit(network.module.apply)(network.variables, x, fractions)
    golden.compare_images("out_frac_t", out, f32=3e-6)

    # A frequency's last bit is 6e-5 of the angle at t = 1000.
    channels = flags["num_channels"]
    embedding = timestep_embedding(jnp.asarray(t, golden.dtype), channels)
    golden.compare("timestep_embedding", embedding, f32=6e-5)
    compare_frequencies(golden, channels)

    names = golden.config.get("block_stats", {}).get("names", [])
    outputs = [_block_output(blocks, name) for name in names]
    stats = [[h.mean(), h.std(), np.abs(h).max()] for h in outputs]
    golden.compare("block_stats", np.array(stats), f32=1e-5)
    golden.compare("block_head", np.stack([h.ravel()[:8] for h in outputs]), f32=1e-5)


def _block_output(blocks: Any, name: str) -> np.ndarray:
    """The output of an original's block, channels first: that of its last child."""
    prefix = name.replace(".", "_")
    children = {
        int(match[1]): child
        for child in blocks
        if (match := re.fullmatch(rf"{prefix}_(\d+)", child))
    }
    output = np.asarray(blocks[children[max(children)]]["__call__"][0])
    return nchw(output) if output.ndim == 4 else output
