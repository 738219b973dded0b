"""What each network is trained to do: the loss, and what is looked at while it trains.

An objective is a frozen dataclass with three pure methods:
    loss(variables, images, labels, key, progress)
        -> (loss, (metrics, updated non-parameter variables))
    evaluate(variables, images, labels, key) -> metrics on a held-out batch
    picture(variables, images, key) -> rows of images to look at, or None
`images` are float32 [B, H, W, 3] in [0, 1], `labels` float32 [B]; `progress` is the share of the
training that is done, 0 to 1.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from diffcf_jax.diffusion import ddim, ddpm
from diffcf_jax.diffusion.schedule import (
    Diffusion,
    at,
    make_diffusion,
    q_posterior_mean,
    q_sample,
    training_target,
)

Array = jax.Array
Metrics = dict[str, Array]


@dataclasses.dataclass(frozen=True, eq=False)
class DDPMObjective:
    """Denoising with a learned variance (Nichol and Dhariwal, 2021, eq. 16).

    `L = |eps - eps_hat|^2 + L_vlb(t)` (or x_0 or v instead of eps), averaged over pixels; L_vlb
    trains the variance only, because the mean it sees is detached.

    Attributes:
        module: the UNet.
        diffusion: the full process.
        max_timestep: draw t below this; a network for AC-RE never sees more noise than tau needs.
        respacing: of the process that the pictures' F_tau uses.
        tau: its depth.
    """

    module: nn.Module
    diffusion: Diffusion
    max_timestep: int | None = None
    respacing: str = "50"
    tau: int = 5

    def loss(self, variables: Any, images: Array, labels: Array, key: Array, progress: Array):
        """The hybrid loss at one random timestep an image."""
        del labels, progress
        key_t, key_noise, key_dropout = jax.random.split(key, 3)
        x = 2 * images - 1
        limit = self.max_timestep or self.diffusion.num_timesteps
        t = jax.random.randint(key_t, x.shape[:1], 0, limit)
        noise = jax.random.normal(key_noise, x.shape)
        x_t = q_sample(self.diffusion, x, t, noise)
        output = self.module.apply(
            variables, x_t, self.diffusion.model_t(t), train=True, rngs={"dropout": key_dropout}
        )
        channels = x.shape[-1]
        wanted = training_target(self.diffusion, x, t, noise)
        mse = jnp.mean(jnp.square(output[..., :channels] - wanted))
        metrics = {"mse": mse}
        loss = mse
        if self.diffusion.variance == "learned_range":
            detached = jnp.concatenate(
                [jax.lax.stop_gradient(output[..., :channels]), output[..., channels:]], axis=-1
            )
            metrics["vlb"] = jnp.mean(variational_bound(self.diffusion, detached, x, x_t, t))
            loss = mse + metrics["vlb"]
        return loss, (metrics, {})

    def evaluate(self, variables: Any, images: Array, labels: Array, key: Array) -> Metrics:
        """The same loss on held-out images."""
        loss, (metrics, _) = self.loss(variables, images, labels, key, 1.0)
        return {"loss": loss, **metrics}

    def picture(self, variables: Any, images: Array, key: Array) -> list[Array]:
        """Held-out images above their F_tau."""
        process = make_diffusion(
            self.diffusion.original_steps,
            respacing=self.respacing,
            variance=self.diffusion.variance,
            predict=self.diffusion.predict,
        )
        x = 2 * images - 1
        noises = jax.random.normal(key, (self.tau, *x.shape))

        def model(x_t: Array, t: Array) -> Array:
            return self.module.apply(variables, x_t, jnp.full(x_t.shape[:1], t))

        return [images, ddpm.noise_and_denoise(process, model, x, noises) / 2 + 0.5]


@dataclasses.dataclass(frozen=True, eq=False)
class DiffAEObjective:
    """Denoising given z_sem, encoder and UNet together (Preechakul et al., 2022, eq. 6).

    Attributes:
        module: the DiffAE.
        diffusion: the full process.
        decode_steps: T of the reconstructions that are looked at.
    """

    module: nn.Module
    diffusion: Diffusion
    decode_steps: int = 10

    def loss(self, variables: Any, images: Array, labels: Array, key: Array, progress: Array):
        """The squared error of the prediction given z_sem(x), at one random timestep an image."""
        del labels, progress
        key_t, key_noise, key_dropout = jax.random.split(key, 3)
        x = 2 * images - 1
        t = jax.random.randint(key_t, x.shape[:1], 0, self.diffusion.num_timesteps)
        noise = jax.random.normal(key_noise, x.shape)
        x_t = q_sample(self.diffusion, x, t, noise)
        output = self.module.apply(
            variables, x, x_t, self.diffusion.model_t(t), train=True, rngs={"dropout": key_dropout}
        )
        wanted = training_target(self.diffusion, x, t, noise)
        mse = jnp.mean(jnp.square(output - wanted))
        return mse, ({"mse": mse}, {})

    def evaluate(self, variables: Any, images: Array, labels: Array, key: Array) -> Metrics:
        """The loss, and the reconstruction error in [0, 1] from inverted and from random x_T."""
        mse, _ = self.loss(variables, images, labels, key, 1.0)
        _, inverted, rendered = self.picture(variables, images, key)
        return {
            "loss": mse,
            "reconstruction_mae": jnp.mean(jnp.abs(inverted - images)),
            "render_mae": jnp.mean(jnp.abs(rendered - images)),
        }

    def picture(self, variables: Any, images: Array, key: Array) -> list[Array]:
        """Held-out images, their reconstructions, and z_sem rendered from other noise."""
        x = 2 * images - 1
        z_sem = self.module.apply(variables, x, method="encode")
        process = make_diffusion(
            self.diffusion.original_steps,
            respacing=f"ddim{self.decode_steps}",
            predict=self.diffusion.predict,
        )

        def model(x_t: Array, t: Array) -> Array:
            t = jnp.full(x_t.shape[:1], t)
            return self.module.apply(variables, x_t, t, z_sem, method="predict")

        x_T = ddim.invert(process, model, x)
        noise = jax.random.normal(key, x.shape)
        decoded = (ddim.decode(process, model, start) / 2 + 0.5 for start in (x_T, noise))
        return [images, *decoded]


@dataclasses.dataclass(frozen=True, eq=False)
class RegressionObjective:
    """Mean squared error of a regressor, optionally on adversarial images.

    A regressor that tiny changes of the background can move tells little about its subject, and
    pixel-space counterfactuals of it edit the background. Fast adversarial training (Wong et al.,
    2020) takes that away: each image is moved by at most its own share of `adversarial` a pixel,
    from a random start along the sign of the gradient. The radius grows over the first half of
    the training; a fresh network learns nothing from the full one.

    Attributes:
        module: the regressor.
        adversarial: the largest change of a pixel, in [0, 1]; 0 trains on clean images.
    """

    module: nn.Module
    adversarial: float = 0.0

    def loss(self, variables: Any, images: Array, labels: Array, key: Array, progress: Array):
        """(y - y_hat)^2, with batch statistics where the module keeps them."""
        collections = [name for name in variables if name != "params"]

        def squared_error(images: Array) -> tuple[Array, Any]:
            predictions, updated = self.module.apply(
                variables, images, train=True, mutable=collections
            )
            return jnp.mean(jnp.square(predictions - labels)), updated

        if self.adversarial:
            key_radius, key_start = jax.random.split(key)
            share = jax.random.uniform(key_radius, (images.shape[0], 1, 1, 1))
            radius = self.adversarial * jnp.minimum(2 * progress, 1) * share
            start = radius * jax.random.uniform(key_start, images.shape, minval=-1, maxval=1)
            direction = jnp.sign(jax.grad(squared_error, has_aux=True)(images + start)[0])
            change = jnp.clip(start + 1.25 * radius * direction, -radius, radius)
            images = jax.lax.stop_gradient(jnp.clip(images + change, 0, 1))
        mse, updated = squared_error(images)
        return mse, ({"mse": mse}, updated)

    def evaluate(self, variables: Any, images: Array, labels: Array, key: Array) -> Metrics:
        """Mean absolute and squared error with running statistics."""
        del key
        error = self.module.apply(variables, images) - labels
        return {"mae": jnp.mean(jnp.abs(error)), "loss": jnp.mean(jnp.square(error))}

    def picture(self, variables: Any, images: Array, key: Array) -> None:
        """A regressor has nothing to show."""


def variational_bound(
    diffusion: Diffusion, model_output: Array, x_start: Array, x_t: Array, t: Array
) -> Array:
    """One term of the variational bound, in bits a dimension (Nichol and Dhariwal, 2021, eq. 4-7).

    `KL(q(x_(t-1) | x_t, x_0) || p(x_(t-1) | x_t))` for t > 0, `-log p(x_0 | x_1)` for t = 0 with
    the likelihood of the 256 grey values.

    Args:
        diffusion: the process.
        model_output: [B, H, W, 2C].
        x_start: [B, H, W, C] in [-1, 1].
        x_t: [B, H, W, C].
        t: [B] indices.

    Returns:
        [B].
    """
    p = ddpm.p_mean_variance(diffusion, model_output, x_t, t, clip_denoised=False)
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
