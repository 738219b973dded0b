"""The refinement of AC-RE: regenerate where much changed, keep the original elsewhere."""

import jax
import jax.numpy as jnp

from diffcf_jax.diffusion.ddpm import Model, p_mean_variance
from diffcf_jax.diffusion.schedule import Diffusion, q_sample

Array = jax.Array


def change_mask(x: Array, x_adv: Array) -> Array:
    """How much each pixel changed: sum_c |x - x_adv| over its maximum; 0 if nothing changed.

    Args:
        x: [H, W, C].
        x_adv: [H, W, C].

    Returns:
        [H, W, 1] in [0, 1].
    """
    change = jnp.sum(jnp.abs(x - x_adv), axis=-1, keepdims=True)
    largest = change.max()
    divisor = jnp.broadcast_to(jnp.where(largest > 0, largest, 1), change.shape)
    # Hidden from XLA, which would multiply by a rounded 1 / largest: a pixel at the threshold may
    # be kept only where it is by an exact division.
    return change / jax.lax.optimization_barrier(divisor)


def dilate(mask: Array, size: int) -> Array:
    """The largest value within a square of `size` (odd) around each pixel of [H, W, 1]."""
    window = (size, size, 1)
    return jax.lax.reduce_window(mask, -jnp.inf, jax.lax.max, window, (1, 1, 1), "SAME")


def refine(
    diffusion: Diffusion,
    model: Model,
    x: Array,
    x_adv: Array,
    keep: Array,
    noises: Array,
) -> Array:
    """Denoises x_adv from depth tau with the kept pixels pinned to the original.

    Before each call of the network the kept pixels are replaced by the original at the current
    noise level, with fresh noise, and at the end by the original itself: one pass of RePaint
    (Lugmayr et al., 2022, eq. 8) as in ACE (Jeanneret et al., 2023, eq. 6).

    Args:
        diffusion: the respaced process.
        model: the network.
        x: original [H, W, C] in [0, 1].
        x_adv: attacked image [H, W, C] in [0, 1].
        keep: [H, W, 1], 1 where the original stays.
        noises: [2 tau, H, W, C], standard normal: one to noise x_adv, tau for the original, and
            one after each of the first tau - 1 steps.

    Returns:
        [H, W, C] in [0, 1].
    """
    tau = noises.shape[0] // 2
    original = 2 * x - 1

    def denoise(x_t: Array, step: tuple[Array, Array, Array]) -> tuple[Array, None]:
        t, noise_original, noise = step
        x_t = (1 - keep) * x_t + keep * q_sample(diffusion, original, t, noise_original)
        p = p_mean_variance(diffusion, model(x_t, diffusion.model_t(t)), x_t, t)
        return p.mean + jnp.exp(0.5 * p.log_variance) * noise, None

    x_t = q_sample(diffusion, 2 * x_adv - 1, tau - 1, noises[0])
    step_noises = jnp.concatenate([noises[1 + tau :], jnp.zeros_like(noises[:1])])
    steps = (jnp.arange(tau - 1, -1, -1), noises[1 : 1 + tau], step_noises)
    x_0, _ = jax.lax.scan(denoise, x_t, steps)
    x_0 = (1 - keep) * x_0 + keep * original
    return jnp.clip(x_0 / 2 + 0.5, 0, 1)
