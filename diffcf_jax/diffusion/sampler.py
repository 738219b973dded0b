"""Samplers: ancestral denoising with a DDPM, F_tau and its refinement, and DDIM both ways.

A step turns a network's output for x_t into its neighbour in the process; a loop repeats the step.
Every function accepts one image [H, W, C], as under `jax.vmap`, and a batch [B, H, W, C] alike.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Scalar

from diffcf_jax.diffusion.schedule import (
    Diffusion,
    Image,
    Index,
    at,
    predict_eps,
    predict_x_start,
    q_posterior_mean,
    q_sample,
)
from diffcf_jax.models.remat import checkpoint_step

# Of a network for x_t: the same shape, or twice the channels with a learned variance
Output = Float[Array, "..."]
# (x_t, t on the scale of the original process) -> Output
Model = Callable[[Array, Array], Array]
# index t of the process -> standard normal noise in the shape of x_t
Noise = Callable[[Array], Array]
# The draws of F_tau
Noises = Float[Array, "tau *image"]


def bind(
    apply: Callable[..., Array],
    variables: Any,
    z_sem: Float[Array, "..."] | None = None,
    **options: Any,
) -> Model:
    """Returns the `model(x_t, t)` of a network that expects batches, for one input or a batch.

    Args:
        apply: `(variables, x_t [B, ...], t [B]) -> output [B, ...]`, such as a Flax module's; with
            a condition `(variables, x_t, t, z_sem [B, D])`.
        variables: the first argument of `apply`.
        z_sem: the condition, [D] for one image and [B, D] for a batch.
        **options: further keyword arguments of `apply`, such as `method="predict"`.

    Returns:
        The closure. Its x_t is an image [H, W, C], a code [D], or a batch of either; its t is one
        timestep for all. Its output has the dtype of x_t.
    """
    condition = () if z_sem is None else (z_sem,)

    def model(x_t: Image, t: Scalar) -> Output:
        single = x_t.ndim % 2 == 1  # images have three axes, codes one, and a batch one more
        inputs = (x_t, *condition)
        x_t, *rest = (x[None] for x in inputs) if single else inputs
        output = apply(variables, x_t, jnp.broadcast_to(t, x_t.shape[:1]), *rest, **options)
        return (output[0] if single else output).astype(x_t.dtype)

    return model


class Prediction(NamedTuple):
    """What a network predicts from x_t: p(x_(t-1) | x_t) = N(mean, variance), and x_0.

    Attributes:
        mean: in the shape of x_t, like all of them.
        variance: of each value.
        log_variance: its logarithm.
        x_start: x_0.
    """

    mean: Image
    variance: Image
    log_variance: Image
    x_start: Image


def p_mean_variance(
    diffusion: Diffusion,
    output: Output,
    x_t: Image,
    t: Index,
    clip_denoised: bool = True,
) -> Prediction:
    """Converts the network's output to p(x_(t-1) | x_t) (Nichol and Dhariwal, 2021, eq. 15).

    Args:
        diffusion: the process.
        output: of the network: as many channels as x_t, or twice as many with a learned variance.
        x_t: the noised images.
        t: index into the process; a scalar, or one index per leading axis.
        clip_denoised: clip the predicted x_0 to [-1, 1]; its gradient is 0 outside.
    """
    channels = x_t.shape[-1]
    output, v = output[..., :channels], output[..., channels:]
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


def p_sample(
    diffusion: Diffusion,
    output: Output,
    x_t: Image,
    t: Scalar | int,
    noise: Image,
) -> Image:
    """One ancestral step, `x_(t-1) = mean(x_t) + sqrt(variance(x_t)) noise`; at t = 0 the mean.

    Args:
        diffusion: the process.
        output: of the network, for x_t.
        x_t: the noised images.
        t: index into the process.
        noise: standard normal; not read at t = 0.
    """
    p = p_mean_variance(diffusion, output, x_t, t)
    return p.mean + jnp.exp(0.5 * p.log_variance) * jnp.where(t > 0, noise, 0)


class Keep(NamedTuple):
    """Pixels that `p_sample_loop` pins to an original.

    Attributes:
        mask: [..., H, W, 1], 1 where the original stays.
        original: [..., H, W, C] in [-1, 1].
        noise: of the original at each index t.
    """

    mask: Float[Array, "..."]
    original: Image
    noise: Noise

    def pin(self, image: Array, original: Array) -> Array:
        """Replaces the kept pixels of an image by those of the original."""
        return (1 - self.mask) * image + self.mask * original


def p_sample_loop(
    diffusion: Diffusion,
    model: Model,
    x_t: Image,
    tau: Scalar | int,
    noise: Noise,
    keep: Keep | None = None,
    remat: bool = False,
) -> Image:
    """Denoises x_t to x_0 in tau ancestral steps, t = tau - 1, ..., 0.

    With `keep` each call of the network sees the original, freshly noised to the same level, at the
    kept pixels, and the result has the original itself there: one pass of RePaint (Lugmayr et al.,
    2022, eq. 8), as in ACE (Jeanneret et al., 2023, eq. 6).

    Args:
        diffusion: the process.
        model: the network, see `bind`.
        x_t: images at index tau - 1; `diffusion.num_timesteps` starts from pure noise.
        tau: the number of steps. It may be traced where no gradient is taken.
        noise: what to add after the step of each index t > 0.
        keep: the pixels to pin; None pins nothing.
        remat: recompute each step in the backward pass, see `models.remat.checkpoint_step`.

    Returns:
        x_0 in about [-1, 1], not clipped.
    """

    def step(i: Array, x_t: Array) -> Array:
        t = tau - 1 - i
        if keep is not None:
            x_t = keep.pin(x_t, q_sample(diffusion, keep.original, t, keep.noise(t)))
        return p_sample(diffusion, model(x_t, diffusion.model_t(t)), x_t, t, noise(t))

    x_0 = jax.lax.fori_loop(0, tau, checkpoint_step(step, remat), x_t)
    return x_0 if keep is None else keep.pin(x_0, keep.original)


def noise_and_denoise(
    diffusion: Diffusion,
    model: Model,
    x: Image,
    noises: Noises,
    remat: bool = False,
) -> Image:
    """F_tau: noises images to depth tau and denoises them (Ha and Bender, 2025, eq. 9).

    Args:
        diffusion: the process.
        model: the network, see `bind`.
        x: images in [-1, 1].
        noises: standard normal: the first noises the images, the others follow the first tau - 1
            denoising steps.
        remat: see `p_sample_loop`.

    Returns:
        The denoised images, not clipped.
    """
    tau = noises.shape[0]
    x_tau = q_sample(diffusion, x, tau - 1, noises[0])
    return p_sample_loop(diffusion, model, x_tau, tau, lambda t: noises[-t], remat=remat)


def ddim_step(
    diffusion: Diffusion,
    output: Image,
    x_t: Image,
    t: Index,
    reverse: bool = False,
    clip: bool = True,
) -> Image:
    """One deterministic step (eta = 0), towards the image or, in `reverse`, towards x_T.

    `x_0 = clip(x_0(x_t, output), -1, 1)`, `eps = eps(x_t, x_0)`, and then
    `sqrt(a) x_0 + sqrt(1 - a) eps` with `a = alphas_cumprod` of the neighbouring timestep: 1 at
    the end of the image, 0 at that of the noise (Song et al., 2021, eq. 12; Preechakul et al.,
    2022, eq. 8).

    Args:
        diffusion: the process.
        output: of the network, for x_t.
        x_t: noised images or codes.
        t: index into the process.
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


def invert(diffusion: Diffusion, model: Model, x: Image) -> Image:
    """Runs DDIM from an image to its noise x_T, which encodes what z_sem leaves out.

    Args:
        diffusion: the process; more steps reconstruct better.
        model: the network with z_sem bound.
        x: images in [-1, 1].
    """

    def step(t: Array, x_t: Array) -> Array:
        return ddim_step(diffusion, model(x_t, diffusion.model_t(t)), x_t, t, reverse=True)

    return jax.lax.fori_loop(0, diffusion.num_timesteps, step, x)


def decode(
    diffusion: Diffusion,
    model: Model,
    x_T: Image,
    remat: bool = False,
    clip: bool = True,
) -> Image:
    """Runs DDIM from x_T to an image in [-1, 1]; the inverse of `invert` in the limit of steps.

    Args:
        diffusion: the process.
        model: the network with z_sem bound; gradients flow through every step.
        x_T: the noise.
        remat: recompute each step in the backward pass, see `models.remat.checkpoint_step`.
        clip: see `ddim_step`.
    """
    last = diffusion.num_timesteps - 1

    def step(i: Array, x_t: Array) -> Array:
        t = last - i
        return ddim_step(diffusion, model(x_t, diffusion.model_t(t)), x_t, t, clip=clip)

    return jax.lax.fori_loop(0, diffusion.num_timesteps, checkpoint_step(step, remat), x_T)
