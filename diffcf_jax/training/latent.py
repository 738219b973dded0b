"""The training of the latent DPM, which learns the distribution of a Diff-AE's codes."""

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from diffcf_jax import parallel
from diffcf_jax.checkpoint.network import Network
from diffcf_jax.diffusion.schedule import Diffusion, make_diffusion
from diffcf_jax.sampling import render, sample_codes
from diffcf_jax.training.batching import Mapper, Read
from diffcf_jax.training.denoising import denoise
from diffcf_jax.training.generators import check_respacing
from diffcf_jax.training.options import check_types

Array = jax.Array


@dataclasses.dataclass(frozen=True, eq=False)
class LatentDPMObjective:
    """Denoising of normalised codes (Preechakul et al., 2022, section 3.3).

    `L = |eps - eps_hat(z_t, t)|_1`, averaged over channels, where z_0 is z_sem less its mean over
    the training set and divided by its standard deviation; both are stored with the network.

    Attributes:
        module: the latent DPM.
        diffusion: its full process.
        diffae: the Diff-AE whose codes it learns.
        loss_type: "l1", the paper's choice, or "mse".
        sample_steps: DDIM steps from z_T to a code, in pictures.
        decode_steps: DDIM steps from x_T to an image, in pictures.
    """

    module: nn.Module
    diffusion: Diffusion
    diffae: Network
    loss_type: Literal["l1", "mse"] = "l1"
    sample_steps: int = 20
    decode_steps: int = 20

    best: ClassVar[str] = "loss"
    trained: ClassVar[None] = None

    def __post_init__(self) -> None:
        """Checks what a config may get wrong."""
        check_types(self, "config.objective")
        check_respacing(self.diffusion, "sample_steps", f"ddim{self.sample_steps}")
        process = make_diffusion(**self.diffae.description["diffusion"])
        check_respacing(process, "decode_steps", f"ddim{self.decode_steps}")

    @property
    def frozen(self) -> Mapping[str, Any]:
        """The Diff-AE's variables, for pictures."""
        return {"diffae": self.diffae.variables}

    def loss(self, variables: Any, codes: Array, labels: Array, key: Array, progress: Array):
        """The error of the noise at one random timestep per code."""
        del labels, progress
        loss = self._loss(variables, codes, key).mean()
        return loss, ({}, {})

    def evaluate(self, variables: Any, codes: Array, labels: Array, key: Array):
        """The same loss of held-out codes."""
        del labels
        return {"loss": self._loss(variables, codes, key)}

    def picture(self, variables: Any, codes: Array, key: Array) -> list[Array]:
        """Held-out codes rendered, above images of codes that the latent DPM draws."""
        key_z, key_x = jax.random.split(key)
        size = self.diffae.description["image_size"]
        x_T = jax.random.normal(key_x, (codes.shape[0], size, size, 3))
        z_T = jax.random.normal(key_z, codes.shape)
        own = {name: variables[name] for name in ("params", "stats")}
        drawn = sample_codes(self.module, self.diffusion, own, z_T, self.sample_steps)
        process = make_diffusion(**self.diffae.description["diffusion"])
        return [
            render(self.diffae.module, process, variables["diffae"], z_sem, x_T, self.decode_steps)
            for z_sem in (codes, drawn)
        ]

    def _loss(self, variables: Any, codes: Array, key: Array) -> Array:
        key_t, key_noise = jax.random.split(key)
        own = {name: variables[name] for name in ("params", "stats")}
        z = self.module.apply(own, codes, method="normalize")
        step = denoise(self.diffusion, partial(self.module.apply, own), z, key_t, key_noise)
        error = step.prediction - step.target
        return (jnp.abs(error) if self.loss_type == "l1" else jnp.square(error)).mean(1)


@dataclasses.dataclass(frozen=True, eq=False)
class Codes:
    """A data set of codes, for `data.loader.batches`.

    Attributes:
        images: float32 [N, D]; the loader's name for what is looked up.
        labels: float32 [N], those of the images.
        names: of the images.
    """

    images: np.ndarray
    labels: np.ndarray
    names: list[str]

    def __len__(self) -> int:
        return len(self.images)

    @property
    def statistics(self) -> dict[str, dict[str, np.ndarray]]:
        """Mean and standard deviation of every channel, as the latent DPM keeps them."""
        std = self.images.std(axis=0, ddof=1, dtype=np.float64).clip(1e-6)
        mean = self.images.mean(axis=0, dtype=np.float64)
        return {"stats": {"z_mean": mean.astype(np.float32), "z_std": std.astype(np.float32)}}


def encode(diffae: Network, read: Read, count: int, batch_size: int, mesh: Mesh) -> np.ndarray:
    """Encodes images.

    Args:
        diffae: the Diff-AE.
        read: rows -> (images, uint8 [n, H, W, 3],).
        count: how many images there are.
        batch_size: images at a time.
        mesh: the devices.

    Returns:
        float32 [count, D].
    """

    def compute(variables: Any, i: Array, images: Array) -> Array:
        del i
        x = images.astype(jnp.float32) * (2 / 255) - 1
        return diffae.module.apply(variables, x, method="encode").astype(jnp.float32)

    variables = parallel.replicate(diffae.variables, mesh)
    return Mapper(compute, mesh)(variables, read, count, batch_size)
