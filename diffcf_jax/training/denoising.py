"""What every generator learns from: one random timestep per example."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from diffcf_jax.diffusion.schedule import Diffusion, q_sample, training_target
from diffcf_jax.models.cpu.materialize import materialize


class Denoising(NamedTuple):
    """A network's answer at one timestep per example.

    Attributes:
        t: the timesteps, as indices.
        x_t: the noised examples.
        target: what should be predicted.
        prediction: what is predicted.
        variance: further channels of the output, for a learned variance; else [].
    """

    t: Int[Array, " B"]
    x_t: Float[Array, "B ..."]
    target: Float[Array, "B ..."]
    prediction: Float[Array, "B ..."]
    variance: list[Float[Array, "B ..."]]


def denoise(
    diffusion: Diffusion,
    predict: Callable[[Array, Array], Array],
    x: Float[Array, "B ..."],
    key_t: Array,
    key_noise: Array,
    max_timestep: int | None = None,
) -> Denoising:
    """Noises examples, x_t = q(x_t | x_0), and has a network predict what it is trained for.

    On a CPU noise and outputs are computed once and not again in every loop that reads them, which
    changes no number.

    Args:
        diffusion: the process.
        predict: (x_t, the network's t [B]) -> output, whose last axis is once or twice that of x.
        x: images in [-1, 1] or normalised codes.
        key_t: of the timesteps, which are uniform.
        key_noise: of the noise.
        max_timestep: draw t below this; None: all timesteps.
    """
    t = jax.random.randint(key_t, x.shape[:1], 0, max_timestep or diffusion.num_timesteps)
    noise = materialize(jax.random.normal(key_noise, x.shape))
    x_t = q_sample(diffusion, x, t, noise)
    output = predict(x_t, diffusion.model_t(t)).astype(jnp.float32)
    parts = jnp.split(output, output.shape[-1] // x.shape[-1], -1)
    prediction, *variance = (materialize(part) for part in parts)
    return Denoising(t, x_t, training_target(diffusion, x, t, noise), prediction, variance)
