"""Ancestral denoising with a DDPM, and the noise-then-denoise map F_tau of AC-RE."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from diffcf_jax.diffusion.remat import checkpoint_step
from diffcf_jax.diffusion.schedule import (
    Diffusion,
    at,
    predict_x_start,
    q_posterior_mean,
    q_sample,
)

Array = jax.Array
# (x_t, t on the original scale) -> the network's output, with x_t's shape but for the channels.
Model = Callable[[Array, Array], Array]


class Prediction(NamedTuple):
    """The network's reading of x_t: p(x_(t-1) | x_t) = N(mean, exp(log_variance)), and x_0."""

    mean: Array
    variance: Array
    log_variance: Array
    x_start: Array


def p_mean_variance(
    diffusion: Diffusion,
    model_output: Array,
    x_t: Array,
    t: Array | int,
    clip_denoised: bool = True,
) -> Prediction:
    """Turns the network's output into p(x_(t-1) | x_t) (Nichol and Dhariwal, 2021, eq. 15).

    Args:
        diffusion: the process.
        model_output: [..., C], or [..., 2C] with a learned variance.
        x_t: [..., C].
        t: index into the respaced process, scalar or one for each leading axis.
        clip_denoised: clip the predicted x_0 to [-1, 1]; its gradient is 0 outside.
    """
    channels = x_t.shape[-1]
    output, v = model_output[..., :channels], model_output[..., channels:]
    low = at(diffusion.posterior_log_variance_clipped, t, x_t)
    if diffusion.variance == "learned_range":
        fraction = (v + 1) / 2
        log_variance = fraction * at(diffusion.log_betas, t, x_t) + (1 - fraction) * low
        variance = jnp.exp(log_variance)
    elif diffusion.variance == "fixed_small":
        log_variance = low
        variance = at(diffusion.posterior_variance, t, x_t)
    else:
        variance = at(diffusion.fixed_large_variance, t, x_t)
        log_variance = jnp.log(variance)

    x_start = predict_x_start(diffusion, x_t, t, output)
    if clip_denoised:
        x_start = jnp.clip(x_start, -1, 1)
    mean = q_posterior_mean(diffusion, x_start, x_t, t)
    variance, log_variance = (jnp.broadcast_to(v, x_t.shape) for v in (variance, log_variance))
    return Prediction(mean, variance, log_variance, x_start)


def noise_and_denoise(
    diffusion: Diffusion,
    model: Model,
    x: Array,
    noises: Array,
    remat: bool = False,
) -> Array:
    """F_tau: noises an image to depth tau and denoises it again (Ha and Bender, 2025, eq. 9).

    `x_tau = q_sample(x, tau - 1, noises[0])`, then for t = tau - 1 ... 0
    `x_(t-1) = mean(x_t) + exp(log_variance(x_t) / 2) noise`, without noise in the last step.

    Args:
        diffusion: the respaced process.
        model: the network.
        x: images [..., H, W, C] in [-1, 1].
        noises: [tau, *x.shape], standard normal: the first noises the image, the others follow
            the first tau - 1 denoising steps.
        remat: recompute each denoising step in the backward pass, see `remat.checkpoint_step`.

    Returns:
        The denoised images, not clipped.
    """
    tau = noises.shape[0]

    def denoise(x_t: Array, step: tuple[Array, Array]) -> tuple[Array, None]:
        t, noise = step
        p = p_mean_variance(diffusion, model(x_t, diffusion.model_t(t)), x_t, t)
        return p.mean + jnp.exp(0.5 * p.log_variance) * noise, None

    x_t = q_sample(diffusion, x, tau - 1, noises[0])
    step_noises = jnp.concatenate([noises[1:], jnp.zeros_like(noises[:1])])
    steps = (jnp.arange(tau - 1, -1, -1), step_noises)
    x_0, _ = jax.lax.scan(checkpoint_step(denoise, remat), x_t, steps)
    return x_0
