"""Images and codes out of nothing but noise: what a Diff-AE and its latent DPM imagine."""

import functools
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from diffcf_jax.checkpoint.network import Network
from diffcf_jax.diffusion.sampler import bind, decode
from diffcf_jax.diffusion.schedule import Diffusion, make_diffusion, respace
from diffcf_jax.errors import UserError

Array = jax.Array


def sample_codes(
    module: nn.Module, diffusion: Diffusion, variables: Any, z_T: Array, steps: int
) -> Array:
    """Denoises z_T into codes z_sem (Preechakul et al., 2022, section 3.3).

    Args:
        module: the latent DPM.
        diffusion: its full process.
        variables: of the module.
        z_T: [B, D], standard normal.
        steps: of the deterministic DDIM.

    Returns:
        [B, D], not normalised: what the Diff-AE's UNet takes.
    """
    model = bind(module.apply, variables)
    z = decode(respace(diffusion, f"ddim{steps}"), model, z_T, clip=False)
    return module.apply(variables, z, method="denormalize")


def render(
    module: nn.Module, diffusion: Diffusion, variables: Any, z_sem: Array, x_T: Array, steps: int
) -> Array:
    """Decodes codes with a Diff-AE.

    Args:
        module: the Diff-AE.
        diffusion: its full process.
        variables: of the module.
        z_sem: [B, D].
        x_T: [B, H, W, 3], standard normal.
        steps: of the deterministic DDIM.

    Returns:
        [B, H, W, 3] in about [0, 1].
    """
    model = bind(module.apply, variables, z_sem, method="predict")
    return decode(respace(diffusion, f"ddim{steps}"), model, x_T) / 2 + 0.5


def sample_images(
    diffae: Network,
    latent_dpm: Network,
    count: int,
    seed: int = 0,
    code_steps: int = 20,
    decode_steps: int = 20,
) -> np.ndarray:
    """Draws images: z_sem from the latent DPM, x_T from a normal distribution.

    Args:
        diffae: the Diff-AE.
        latent_dpm: trained on its codes.
        count: how many, all in one batch.
        seed: of z_T and x_T.
        code_steps: DDIM steps of the latent DPM.
        decode_steps: DDIM steps of the Diff-AE.

    Returns:
        float32 [count, H, W, 3] in [0, 1].

    Raises:
        UserError: the networks are of another kind or do not fit each other.
    """
    for network, kind in ((diffae, "diffae"), (latent_dpm, "latent_dpm")):
        if network.kind != kind:
            raise UserError(f"Sampling needs a network of kind {kind}, not a {network.kind}.")
    channels, size = code_channels(diffae), diffae.description["image_size"]
    if latent_dpm.module.channels != channels:
        raise UserError(
            f"The latent DPM makes codes of {latent_dpm.module.channels} numbers and the Diff-AE "
            f"takes {channels}; give the latent DPM that was trained with this Diff-AE."
        )
    key_z, key_x = jax.random.split(jax.random.key(seed))
    codes = jax.jit(functools.partial(_codes, latent_dpm, steps=code_steps))(
        latent_dpm.variables, jax.random.normal(key_z, (count, channels))
    )
    images = jax.jit(functools.partial(_images, diffae, steps=decode_steps))(
        diffae.variables, codes, jax.random.normal(key_x, (count, size, size, 3))
    )
    return np.clip(np.asarray(images), 0, 1)


def code_channels(diffae: Network) -> int:
    """The size of a Diff-AE's z_sem."""
    return diffae.variables["params"]["encoder"]["out_proj"]["bias"].shape[0]


def _codes(network: Network, variables: Any, z_T: Array, steps: int) -> Array:
    diffusion = make_diffusion(**network.description["diffusion"])
    return sample_codes(network.module, diffusion, variables, z_T, steps)


def _images(network: Network, variables: Any, z_sem: Array, x_T: Array, steps: int) -> Array:
    diffusion = make_diffusion(**network.description["diffusion"])
    return render(network.module, diffusion, variables, z_sem, x_T, steps)
