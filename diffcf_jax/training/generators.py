"""The training of the generators: DDPM and Diff-AE."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from diffcf_jax.diffusion import sampler
from diffcf_jax.diffusion.schedule import Diffusion, at, q_posterior_mean, respace
from diffcf_jax.errors import UserError
from diffcf_jax.models.layers import avg_pool
from diffcf_jax.training.denoising import denoise
from diffcf_jax.training.options import check_types


@dataclasses.dataclass(frozen=True, eq=False)
class DDPMObjective:
    """Denoising with a learned variance (Nichol and Dhariwal, 2021, eq. 16).

    `L = |eps - eps_hat|^2 + L_vlb(t)` (or x_0 or v instead of eps), averaged over pixels; L_vlb
    trains the variance only, because the mean it sees is detached.

    Attributes:
        module: the UNet.
        diffusion: the full process.
        max_timestep: draw t below this; a network for AC-RE never sees more noise than tau needs.
            None: all timesteps.
        respacing: of the process that the pictures' F_tau uses.
        tau: its depth.
        scales: see `multiscale_error`.

    The loss takes images and what `augment.random_geometry` did to them, [B, 9] or None, which the
    network is told; held-out images are as they are.
    """

    module: nn.Module
    diffusion: Diffusion
    max_timestep: int | None = None
    respacing: str = "50"
    tau: int = 5
    scales: Sequence[int] = (1,)

    frozen: ClassVar[Mapping[str, Any]] = {}
    best: ClassVar[str] = "loss"
    trained: ClassVar[None] = None

    def __post_init__(self) -> None:
        """Checks what a config may get wrong."""
        check_types(self, "config.objective")
        steps = self.diffusion.num_timesteps
        if self.max_timestep is not None and not 1 <= self.max_timestep <= steps:
            raise UserError(
                f"config.objective.max_timestep={self.max_timestep} must lie between 1 and the "
                f"{steps} steps of config.network.diffusion."
            )
        steps = check_respacing(self.diffusion, "respacing", self.respacing)
        if not 1 <= self.tau <= steps:
            raise UserError(
                f"config.objective.tau={self.tau} must lie between 1 and {steps} steps."
            )

    def loss(
        self,
        variables: Any,
        inputs: tuple[Array, Array | None],
        labels: Array,
        key: Array,
        progress: Array,
    ):
        """The hybrid loss at one random timestep per image."""
        del labels, progress
        terms = self._terms(variables, *inputs, key, True)
        terms = {name: x.mean() for name, x in terms.items()}
        loss = terms.pop("loss")
        return loss, (terms, {})

    def evaluate(self, variables: Any, images: Array, labels: Array, key: Array):
        """The same loss of held-out images, without dropout."""
        del labels
        return self._terms(variables, images, None, key, False)

    def picture(self, variables: Any, images: Array, key: Array) -> list[Array]:
        """Held-out images above their F_tau."""
        process = respace(self.diffusion, self.respacing)
        x = 2 * images - 1
        noises = jax.random.normal(key, (self.tau, *x.shape))
        model = sampler.bind(self.module.apply, variables)
        return [images, sampler.noise_and_denoise(process, model, x, noises) / 2 + 0.5]

    def _terms(
        self, variables: Any, images: Array, geometry: Array | None, key: Array, train: bool
    ) -> dict[str, Array]:
        key_t, key_noise, key_dropout = jax.random.split(key, 3)
        x = 2 * images - 1

        def predict(x_t: Array, t: Array) -> Array:
            rngs = {"dropout": key_dropout}
            return self.module.apply(variables, x_t, t, train=train, geometry=geometry, rngs=rngs)

        step = denoise(self.diffusion, predict, x, key_t, key_noise, self.max_timestep)
        mse = multiscale_error(step.prediction - step.target, self.scales)
        if self.diffusion.variance != "learned_range":
            return {"loss": mse, "mse": mse}
        detached = [jax.lax.stop_gradient(step.prediction), *step.variance]
        vlb = variational_bound(self.diffusion, jnp.concatenate(detached, -1), x, step.x_t, step.t)
        return {"loss": mse + vlb, "mse": mse, "vlb": vlb}


@dataclasses.dataclass(frozen=True, eq=False)
class DiffAEObjective:
    """Denoising given z_sem, encoder and UNet together (Preechakul et al., 2022, eq. 6).

    Attributes:
        module: the DiffAE.
        diffusion: the full process.
        decode_steps: T of the reconstructions that are looked at.
        weighting: of the timesteps. "uniform"; or "noise", by the standard deviation of the noise
            in x_t: where there is little, the image itself tells the prediction and z_sem learns
            next to nothing.
        scales: see `multiscale_error`; areas are what z_sem is to learn early.
    """

    module: nn.Module
    diffusion: Diffusion
    decode_steps: int = 10
    weighting: Literal["uniform", "noise"] = "uniform"
    scales: Sequence[int] = (1,)

    frozen: ClassVar[Mapping[str, Any]] = {}
    best: ClassVar[str] = "loss"
    trained: ClassVar[None] = None

    def __post_init__(self) -> None:
        """Checks what a config may get wrong."""
        check_types(self, "config.objective")
        check_respacing(self.diffusion, "decode_steps", f"ddim{self.decode_steps}")

    def loss(self, variables: Any, images: Array, labels: Array, key: Array, progress: Array):
        """The squared error of the prediction given z_sem(x), at one random timestep per image."""
        del labels, progress
        mse = self._mse(variables, images, key, True).mean()
        return mse, ({"mse": mse}, {})

    def evaluate(self, variables: Any, images: Array, labels: Array, key: Array):
        """The loss, and the reconstruction error in [0, 1] from inverted and from random x_T."""
        del labels
        _, inverted, rendered = self.picture(variables, images, key)
        return {
            "loss": self._mse(variables, images, key, False),
            "reconstruction_mae": jnp.abs(inverted - images).mean((1, 2, 3)),
            "render_mae": jnp.abs(rendered - images).mean((1, 2, 3)),
        }

    def picture(self, variables: Any, images: Array, key: Array) -> list[Array]:
        """Held-out images, their reconstructions, and z_sem rendered from other noise."""
        x = 2 * images - 1
        z_sem = self.module.apply(variables, x, method="encode")
        process = respace(self.diffusion, f"ddim{self.decode_steps}")
        model = sampler.bind(self.module.apply, variables, z_sem, method="predict")
        x_T = sampler.invert(process, model, x)
        noise = jax.random.normal(key, x.shape)
        decoded = (sampler.decode(process, model, start) / 2 + 0.5 for start in (x_T, noise))
        return [images, *decoded]

    def _mse(self, variables: Any, images: Array, key: Array, train: bool) -> Array:
        key_t, key_noise, key_dropout = jax.random.split(key, 3)
        x = 2 * images - 1

        def predict(x_t: Array, t: Array) -> Array:
            rngs = {"dropout": key_dropout}
            return self.module.apply(variables, x, x_t, t, train=train, rngs=rngs)

        step = denoise(self.diffusion, predict, x, key_t, key_noise)
        mse = multiscale_error(step.prediction - step.target, self.scales)
        if self.weighting == "noise":
            mse *= at(self.diffusion.sqrt_one_minus_alphas_cumprod, step.t, mse)
        return mse


def check_respacing(diffusion: Diffusion, key: str, respacing: str) -> int:
    """The number of steps of a respaced process.

    Args:
        diffusion: the full process.
        key: the option of an objective that asks for them.
        respacing: see `respaced_timesteps`.

    Raises:
        UserError: the process cannot be divided so.
    """
    try:
        return respace(diffusion, respacing).num_timesteps
    except UserError as error:
        raise UserError(f"config.objective.{key}: {error}") from None


def multiscale_error(error: Float[Array, "B H W C"], scales: Sequence[int]) -> Float[Array, " B"]:
    """The squared error of areas of several sizes, `mean_s s^2 mean(pool_s(error)^2)`.

    `pool_s` averages over squares of s by s pixels. An error that nothing can predict, as that of
    noise, weighs the same at each scale; an error of a whole area weighs s^2 times as much as at
    scale 1 (after the multiscale loss of Hoogeboom et al., 2023, "simple diffusion").

    Args:
        error: the error.
        scales: sides of the squares in pixels; (1,) is the mean squared error.

    Raises:
        UserError: a side does not divide the image's.
    """
    for s in scales:
        if s < 1 or error.shape[1] % s:
            raise UserError(
                f"config.objective.scales: {s} does not divide {error.shape[1]} pixels."
            )
    pooled = ((s, avg_pool(error, s)) for s in scales)
    return sum(s * s * jnp.square(e).mean((1, 2, 3)) for s, e in pooled) / len(scales)


def variational_bound(
    diffusion: Diffusion,
    model_output: Float[Array, "B H W C2"],
    x_start: Float[Array, "B H W C"],
    x_t: Float[Array, "B H W C"],
    t: Int[Array, " B"],
) -> Float[Array, " B"]:
    """One term of the variational bound in bits per dimension (Nichol and Dhariwal, 2021, eq. 4-7).

    `KL(q(x_(t-1) | x_t, x_0) || p(x_(t-1) | x_t))` for t > 0, `-log p(x_0 | x_1)` for t = 0 with
    the likelihood of the 256 grey values.

    Args:
        diffusion: the process.
        model_output: prediction and variance, C2 = 2C.
        x_start: in [-1, 1].
        x_t: noised images.
        t: indices.
    """
    p = sampler.p_mean_variance(diffusion, model_output, x_t, t, clip_denoised=False)
    mean = q_posterior_mean(diffusion, x_start, x_t, t)
    log_variance = at(diffusion.posterior_log_variance_clipped, t, x_t)
    kl = 0.5 * (
        p.log_variance
        - log_variance
        - 1
        + jnp.exp(log_variance - p.log_variance)
        + jnp.square(mean - p.mean) * jnp.exp(-p.log_variance)
    )

    def cdf(x: Array) -> Array:
        return jax.scipy.stats.norm.cdf(x, p.mean, jnp.exp(0.5 * p.log_variance))

    below = jnp.where(x_start < -0.999, 0.0, cdf(x_start - 1 / 255))
    above = jnp.where(x_start > 0.999, 1.0, cdf(x_start + 1 / 255))
    nll = -jnp.log(jnp.clip(above - below, 1e-12))
    bound = jnp.where((t == 0)[:, None, None, None], nll, kl)
    return bound.mean((1, 2, 3)) / jnp.log(2.0)
