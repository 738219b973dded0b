"""The refinement of AC-RE: regenerate where much changed, keep the original elsewhere."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffcf_jax.diffusion.sampler import Keep, Model, p_sample_loop
from diffcf_jax.diffusion.schedule import Diffusion, q_sample

Image = Float[Array, "height width channels"]
Mask = Float[Array, "height width 1"]
Noises = Float[Array, "draws height width channels"]


def change_mask(x: Image, x_adv: Image) -> Mask:
    """How much each pixel changed: sum_c |x - x_adv| over its maximum; 0 if nothing changed."""
    change = jnp.sum(jnp.abs(x - x_adv), axis=-1, keepdims=True)
    largest = change.max()
    divisor = jnp.broadcast_to(jnp.where(largest > 0, largest, 1), change.shape)
    # Hidden from XLA, which would multiply by a rounded 1 / largest: a pixel at the threshold may
    # be kept only where it is by an exact division.
    return change / jax.lax.optimization_barrier(divisor)


def dilate(mask: Mask, size: int) -> Mask:
    """The largest value within a square of `size` (odd) around each pixel."""
    window = (size, size, 1)
    return jax.lax.reduce_window(mask, -jnp.inf, jax.lax.max, window, (1, 1, 1), "SAME")


def mean_filter(mask: Mask, size: int) -> Mask:
    """The mean within a square of `size` (odd) around each pixel; 0 beyond the edges."""
    window = (size, size, 1)
    total = jax.lax.reduce_window(mask, 0.0, jax.lax.add, window, (1, 1, 1), "SAME")
    return total / size**2


def refine(
    diffusion: Diffusion, model: Model, x: Image, x_adv: Image, keep: Mask, noises: Noises
) -> Image:
    """Denoises x_adv from depth tau with the kept pixels pinned to the original.

    See `diffusion.sampler.p_sample_loop`.

    Args:
        diffusion: the respaced process.
        model: the network.
        x: the original in [0, 1].
        x_adv: the attacked image in [0, 1].
        keep: 1 where the original stays.
        noises: 2 tau draws, standard normal: one to noise x_adv, tau to noise the original at
            t = tau - 1, ..., 0, and one after each of the first tau - 1 steps.

    Returns:
        The refined image in [0, 1].
    """
    tau = noises.shape[0] // 2
    original = Keep(keep, 2 * x - 1, lambda t: noises[tau - t])
    x_tau = q_sample(diffusion, 2 * x_adv - 1, tau - 1, noises[0])
    x_0 = p_sample_loop(diffusion, model, x_tau, tau, lambda t: noises[-t], original)
    return jnp.clip(x_0 / 2 + 0.5, 0, 1)
