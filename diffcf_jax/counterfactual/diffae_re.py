"""Diff-AE-RE: counterfactuals in the latent space of a Diff-AE (Ha and Bender, 2025, eq. 10).

Adam moves the semantic code z through the decoding, with the stochastic code x_T held, until the
regressor reads the target in the decoded image.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from diffcf_jax.counterfactual.losses import DISTANCES
from diffcf_jax.counterfactual.types import Counterfactual, Regressor, quantize, select
from diffcf_jax.diffusion import ddim
from diffcf_jax.diffusion.schedule import Diffusion

Array = jax.Array


@flax.struct.dataclass
class DiffAEREState:
    """One image on its way.

    Attributes:
        x: the input [H, W, C] in [0, 1].
        z_0: its semantic code [D].
        z: the code that is optimised [D].
        x_T: its stochastic code [H, W, C].
        opt_state: the optimiser's.
        target: the reference value.
        iteration: steps done.
        stopped: see `types.State`.
        done: see `types.State`.
        result: the best image so far.
    """

    x: Array
    z_0: Array
    z: Array
    x_T: Array
    opt_state: Any
    target: Array
    iteration: Array
    stopped: Array
    done: Array
    result: Counterfactual


@dataclasses.dataclass(frozen=True, eq=False)
class DiffAERE:
    """The method.

    Attributes:
        encode: (variables, x [B, H, W, C] in [-1, 1]) -> z_sem [B, D].
        predict: (variables, x_t, t [B], z_sem) -> the noise in x_t.
        inversion: the process of the inversion (the paper's 250 steps).
        decoding: the process of the decoding (its T = 10).
        regressor: (variables, images) -> predictions.
        optimizer: of z; the paper's is Adam with a rate of 0.002.
        iterations: steps at most.
        threshold: success is |prediction - target| at most this, in the regressor's units.
        distance_weight: lambda_d, of |z - z_0| (or of the pixel distance).
        distance: "l1" or "l2".
        distance_space: "latent", or "pixel" for the distance to the input.
        remat: recompute each decoding step in the backward pass, see `ddim.decode`.
    """

    encode: Callable[[Any, Array], Array]
    predict: Callable[[Any, Array, Array, Array], Array]
    inversion: Diffusion
    decoding: Diffusion
    regressor: Regressor
    optimizer: optax.GradientTransformation = optax.adam(0.002)
    iterations: int = 200
    threshold: float = 0.05
    distance_weight: float = 0.0
    distance: str = "l1"
    distance_space: str = "latent"
    remat: bool = False

    @property
    def loop_length(self) -> int:
        """Turns of the decoding loop."""
        return self.decoding.num_timesteps

    def init(self, params: Any, image: Array, target: Array, key: Array) -> DiffAEREState:
        """Encodes the input into z_sem and x_T. The method draws no random number.

        The first step decodes them as they are: its image is the reconstruction.
        """
        del key
        x = 2 * image - 1
        z = self.encode(params["generator"], x[None])[0]
        x_T = ddim.invert(self.inversion, self._model(params, z), x)
        y_initial = self._read(params, image)
        result = Counterfactual(
            image=image,
            reconstruction=image,
            y_initial=y_initial,
            y_reconstruction=y_initial,
            y_final=jnp.full_like(y_initial, jnp.inf),
            success=jnp.zeros((), bool),
            iterations=jnp.zeros((), jnp.int32),
            curve=jnp.full((self.iterations,), jnp.nan, y_initial.dtype),
            mask=jnp.zeros_like(image[..., :1]),
        )
        return DiffAEREState(
            x=image,
            z_0=z,
            z=z,
            x_T=x_T,
            opt_state=self.optimizer.init(z),
            target=target,
            iteration=jnp.zeros((), jnp.int32),
            stopped=jnp.zeros((), bool),
            done=jnp.zeros((), bool),
            result=result,
        )

    def step(self, params: Any, state: DiffAEREState) -> DiffAEREState:
        """One step of the optimiser; an image that meets the criterion is kept as it is.

        The gradient is that of the decoded image, the criterion judges it as it would be saved:
        z then never meets the rounding to 8 bits, and its path depends on no grey value's side.
        """
        _, image, gradient = self.latent_gradient(params, state)
        image = quantize(image)
        y_hat = self._read(params, image)
        updates, opt_state = self.optimizer.update(gradient, state.opt_state, state.z)
        hit = jnp.abs(y_hat - state.target) <= self.threshold
        seen = state.result.replace(image=image, y_final=y_hat, success=hit)
        better = jnp.abs(y_hat - state.target) <= jnp.abs(state.result.y_final - state.target)
        lost = ~jnp.isfinite(y_hat)  # no step leads back: the image is given up
        first = state.iteration == 0
        result = select(better | lost, seen, state.result).replace(
            reconstruction=jnp.where(first, image, state.result.reconstruction),
            y_reconstruction=jnp.where(first, y_hat, state.result.y_reconstruction),
            curve=state.result.curve.at[state.iteration].set(y_hat),
            iterations=state.iteration + 1,
        )
        moved = state.replace(
            z=jnp.where(hit, state.z, state.z + updates),
            opt_state=select(hit, state.opt_state, opt_state),
            iteration=state.iteration + 1,
            stopped=hit | lost | (state.iteration + 1 >= self.iterations),
            result=result,
        )
        return select(state.stopped, state, moved)

    def finish(self, params: Any, state: DiffAEREState) -> DiffAEREState:
        """Accepts: `step` reads the image as it is saved, so there is nothing left to judge."""
        del params
        return state.replace(done=state.stopped)

    def latent_gradient(self, params: Any, state: DiffAEREState) -> tuple[Array, Array, Array]:
        """Loss (eq. 10), the decoded image [H, W, C] in [0, 1], and the gradient in z.

        `(y^ - target)^2 + lambda_d |z - z_0|_p`, or `|x - x'|_p` in pixel space.
        """

        def loss(z: Array) -> tuple[Array, Array]:
            image = self.render(params, z, state.x_T)
            y_hat = self._read(params, image)
            difference = z - state.z_0 if self.distance_space == "latent" else image - state.x
            value = jnp.square(y_hat - state.target)
            value = value + self.distance_weight * DISTANCES[self.distance](difference)
            return value, image

        (value, image), gradient = jax.value_and_grad(loss, has_aux=True)(state.z)
        return value, image, gradient

    def render(self, params: Any, z: Array, x_T: Array) -> Array:
        """Decodes z and x_T into an image [H, W, C] in [0, 1]."""
        return ddim.decode(self.decoding, self._model(params, z), x_T, self.remat) / 2 + 0.5

    def _model(self, params: Any, z: Array) -> Callable[[Array, Array], Array]:
        def model(x_t: Array, t: Array) -> Array:
            return self.predict(params["generator"], x_t[None], t[None], z[None])[0]

        return model

    def _read(self, params: Any, image: Array) -> Array:
        return self.regressor(params["regressor"], image[None])[0]
