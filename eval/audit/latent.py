"""A Diff-AE as functions of arrays: codes of images, images of codes, gradients by codes."""

from typing import Any

import jax
import numpy as np

from diffcf_jax import parallel
from diffcf_jax.checkpoint.network import Network
from diffcf_jax.counterfactual.diffae_re import DiffAERE
from diffcf_jax.counterfactual.types import quantize
from diffcf_jax.diffusion import sampler
from diffcf_jax.regressors.readings import Reader

from ..metrics.batch import in_batches

BATCH = 16  # images at a time and device, whatever is computed: results do not depend on it


class Latent:
    """A Diff-AE as functions of arrays, each compiled once, for BATCH images.

    Args:
        network: the Diff-AE.
        regressor: the explained one.
        options: steps of inversion and decoding.
    """

    def __init__(self, network: Network, regressor: Reader, options: DiffAERE):
        method = options.bind(network, regressor.apply)
        mesh = parallel.data_mesh(jax.local_devices())
        v = parallel.replicate((network.variables, regressor.variables), mesh)

        def model(variables: Any, z: jax.Array) -> sampler.Model:
            return sampler.bind(method.predict, variables, z)

        def render(variables: Any, z: jax.Array, x_T: jax.Array, remat: bool) -> jax.Array:
            return sampler.decode(method.decoding, model(variables, z), x_T, remat) / 2 + 0.5

        def draw(v: Any, z: jax.Array, x_T: jax.Array) -> jax.Array:
            return quantize(render(v[0], z, x_T, False))

        def predict(z: jax.Array, x_T: jax.Array, v: Any) -> jax.Array:
            return regressor.apply(v[1], render(v[0], z, x_T, True)).sum()

        def invert(v: Any, x: jax.Array, z: jax.Array) -> jax.Array:
            return sampler.invert(method.inversion, model(v[0], z), 2 * x - 1)

        def gradient(v: Any, z: jax.Array, x_T: jax.Array) -> jax.Array:
            return jax.grad(predict)(z, x_T, v)

        self._encode = in_batches(lambda v, x: method.encode(v[0], 2 * x - 1), v, BATCH)
        self._invert = in_batches(invert, v, BATCH)
        self._render = in_batches(draw, v, BATCH)
        self._gradient = in_batches(gradient, v, BATCH)

    def encode(self, images: np.ndarray) -> np.ndarray:
        """z_sem [B, D] of images [B, H, W, 3] in [0, 1]."""
        return self._encode(images)

    def invert(self, images: np.ndarray, z: np.ndarray) -> np.ndarray:
        """x_T [B, H, W, 3] of images in [0, 1]."""
        return self._invert(images, z)

    def render(self, z: np.ndarray, x_T: np.ndarray) -> np.ndarray:
        """Images [B, H, W, 3] in [0, 1], rounded to 8 bits as they would be saved."""
        return self._render(z.astype(np.float32), x_T)

    def gradient(self, z: np.ndarray, x_T: np.ndarray) -> np.ndarray:
        """The gradient of the prediction for the image by z [B, D]."""
        return self._gradient(z.astype(np.float32), x_T)
