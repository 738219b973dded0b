"""Deterministic DDIM inversion and decoding (Song et al., 2021) as the Diff-AE uses them."""

import jax
import jax.numpy as jnp

from diffcf_jax.diffusion.ddpm import Model
from diffcf_jax.diffusion.remat import checkpoint_step, without_gradient
from diffcf_jax.diffusion.schedule import Diffusion, at, predict_eps, predict_x_start

Array = jax.Array


def ddim_step(
    diffusion: Diffusion,
    output: Array,
    x_t: Array,
    t: Array | int,
    reverse: bool = False,
    clip: bool = True,
) -> Array:
    """One deterministic step (eta = 0), towards the image or, in `reverse`, towards x_T.

    `x_0 = clip(x_0(x_t, output), -1, 1)`, `eps = eps(x_t, x_0)`, and then
    `sqrt(a) x_0 + sqrt(1 - a) eps` with `a = alphas_cumprod` of the neighbouring timestep: 1 at
    the image's end, 0 at the noise's (Song et al., 2021, eq. 12; Preechakul et al., 2022, eq. 8).

    Args:
        diffusion: the respaced process.
        output: the network's, for x_t.
        x_t: [..., H, W, C].
        t: index into the respaced process.
        reverse: the direction.
        clip: whether x_0 is known to lie in [-1, 1], as images do and codes do not.
    """
    x_start = predict_x_start(diffusion, x_t, t, output)
    if clip:
        x_start = jnp.clip(x_start, -1, 1)
    eps = predict_eps(diffusion, x_t, t, x_start)
    table = diffusion.alphas_cumprod_next if reverse else diffusion.alphas_cumprod_prev
    alphas_cumprod = at(table, t, x_t)
    return jnp.sqrt(alphas_cumprod) * x_start + jnp.sqrt(1 - alphas_cumprod) * eps


def invert(diffusion: Diffusion, model: Model, x: Array) -> Array:
    """Encodes what z_sem leaves out: runs DDIM from the image x in [-1, 1] to its noise x_T.

    Args:
        diffusion: the respaced process; more steps reconstruct better.
        model: the conditional network with z_sem filled in.
        x: [..., H, W, C] in [-1, 1].

    Returns:
        x_T, in shape of x.
    """

    def step(x_t: Array, t: Array) -> tuple[Array, None]:
        return ddim_step(diffusion, model(x_t, diffusion.model_t(t)), x_t, t, reverse=True), None

    def chain(x: Array) -> Array:
        timesteps = jnp.arange(diffusion.num_timesteps)
        return jax.lax.scan(checkpoint_step(step, remat=True), x, timesteps)[0]

    return without_gradient(chain, x)


def decode(
    diffusion: Diffusion,
    model: Model,
    x_T: Array,
    remat: bool = False,
    clip: bool = True,
) -> Array:
    """Runs DDIM from x_T to an image in [-1, 1]; the inverse of `invert` in the limit of steps.

    Args:
        diffusion: the respaced process.
        model: the conditional network with z_sem filled in; gradients flow through every step.
        x_T: [..., H, W, C].
        remat: recompute each step in the backward pass, see `remat.checkpoint_step`.
        clip: see `ddim_step`.

    Returns:
        The image, in shape of x_T.
    """

    def step(x_t: Array, t: Array) -> tuple[Array, None]:
        return ddim_step(diffusion, model(x_t, diffusion.model_t(t)), x_t, t, clip=clip), None

    timesteps = jnp.arange(diffusion.num_timesteps - 1, -1, -1)
    x, _ = jax.lax.scan(checkpoint_step(step, remat), x_T, timesteps)
    return x
