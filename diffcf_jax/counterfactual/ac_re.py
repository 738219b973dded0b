"""AC-RE: adversarial counterfactuals for regression, in pixel space (Ha and Bender, 2025, eq. 9).

PGD on x' until the regressor reads the target in F_tau(x'), the noised and denoised x'; then the
refinement keeps the original where little changed.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from diffcf_jax.counterfactual.refinement import change_mask, dilate, refine
from diffcf_jax.counterfactual.types import Counterfactual, Regressor, quantize, select
from diffcf_jax.diffusion.ddpm import noise_and_denoise
from diffcf_jax.diffusion.schedule import Diffusion

Array = jax.Array


@flax.struct.dataclass
class ACREState:
    """One image on its way.

    Attributes:
        x: the input [H, W, C].
        x_adv: the attacked image x' [H, W, C].
        target: the reference value.
        aim: what F_tau(x') is asked to read: the target, off by what refinement changes.
        best_miss: |prediction - target| of the best refined image so far.
        key: all randomness of this image.
        keep: [H, W, 1], 1 where the input stays; 0 everywhere before the first refinement.
        iteration: PGD steps done.
        stopped: see `types.State`.
        done: see `types.State`.
        result: the best image so far.
    """

    x: Array
    x_adv: Array
    target: Array
    aim: Array
    best_miss: Array
    key: Array
    keep: Array
    iteration: Array
    stopped: Array
    done: Array
    result: Counterfactual


@dataclasses.dataclass(frozen=True, eq=False)
class ACRE:
    """The method, with the paper's hyper-parameters for the squares as defaults.

    Attributes:
        diffusion: the respaced process.
        denoiser: (variables, x_t [B, H, W, C], t [B]) -> the network's output.
        regressor: (variables, images) -> predictions.
        tau: depth of the noising, in respaced steps.
        iterations: PGD steps at most.
        step_size: of PGD, in [0, 1] pixel units.
        gradient_floor: a value moves only where its gradient is at least this share of the
            image's largest one; 0 is the paper's PGD, see `pgd_update`.
        threshold: success is |prediction - target| at most this, in the regressor's units.
        inpaint: dilated change (0 to 1) below which a pixel is kept.
        dilation: size of the dilation, odd.
        remat: recompute each denoising step in the backward pass, see `noise_and_denoise`.
    """

    diffusion: Diffusion
    denoiser: Callable[[Any, Array, Array], Array]
    regressor: Regressor
    tau: int = 5
    iterations: int = 100
    step_size: float = 2 / 255
    gradient_floor: float = 0.0
    threshold: float = 0.05
    inpaint: float = 0.15
    dilation: int = 5
    remat: bool = False

    @property
    def loop_length(self) -> int:
        """Turns of the denoising loop."""
        return self.tau

    def init(self, params: Any, image: Array, target: Array, key: Array) -> ACREState:
        """Starts at the input; the reconstruction is one sample of F_tau(x)."""
        noises = self._noises(jax.random.fold_in(key, 0), 0, self.tau, image)
        reconstruction = jnp.clip(self._denoise(params, image, noises), 0, 1)
        y_initial = self._read(params, image)
        result = Counterfactual(
            image=image,
            reconstruction=reconstruction,
            y_initial=y_initial,
            y_reconstruction=self._read(params, reconstruction),
            y_final=y_initial,
            success=jnp.zeros((), bool),
            iterations=jnp.zeros((), jnp.int32),
            curve=jnp.full((self.iterations,), jnp.nan, y_initial.dtype),
            mask=jnp.ones_like(image[..., :1]),
        )
        return ACREState(
            x=image,
            x_adv=image,
            target=target,
            aim=target,
            best_miss=jnp.full((), jnp.inf, y_initial.dtype),
            key=key,
            keep=jnp.zeros_like(image[..., :1]),
            iteration=jnp.zeros((), jnp.int32),
            stopped=jnp.zeros((), bool),
            done=jnp.zeros((), bool),
            result=result,
        )

    def step(self, params: Any, state: ACREState) -> ACREState:
        """One PGD step: x' <- clip(x' - step_size sign(d/dx' (y^ - aim)^2), 0, 1).

        The criterion is tested on the prediction before the update, as in the original, so the
        image that refinement gets has moved one step further. In the last quarter of the iterations
        every image is refined whatever F_tau's sample reads: what can just be reached, such as the
        brightest red, is reached by some refined images and by hardly any sample.
        """
        noises = self._noises(jax.random.fold_in(state.key, 1), state.iteration, self.tau, state.x)
        _, y_hat, gradient = self.attack_gradient(
            params, state.x_adv, state.aim, noises, state.x, state.keep
        )
        lost = ~jnp.isfinite(y_hat)  # no step leads back: the image is given up
        # Once refined it has to come closer, in smaller steps: F_tau is noisy, and a lucky sample
        # is what failed.
        care = jnp.where(state.keep.any(), 0.5, 1.0)
        number = state.iteration + 1
        late = 4 * number > 3 * self.iterations
        moved = state.replace(
            x_adv=pgd_update(state.x_adv, gradient, care * self.step_size, self.gradient_floor),
            iteration=number,
            stopped=(jnp.abs(y_hat - state.aim) <= care * self.threshold) | late | lost,
            done=lost,
            result=state.result.replace(
                y_final=jnp.where(lost, y_hat, state.result.y_final),
                curve=state.result.curve.at[state.iteration].set(y_hat),
                iterations=number,
            ),
        )
        return select(state.stopped, state, moved)

    def finish(self, params: Any, state: ACREState) -> ACREState:
        """Refines a stopped image and reads the result as it would be saved.

        If the refined image misses the target, PGD goes on with the mask fixed, on F_tau(x')
        inside it and the input outside. It aims off the target by the difference between what it
        read and what the refined image reads, and has to come twice as close, in half steps.
        """
        dilated = dilate(change_mask(state.x, state.x_adv), self.dilation)
        keep = (dilated < self.inpaint).astype(state.x.dtype)
        keep = jnp.where(state.keep.any(), state.keep, keep)
        noises = self._noises(
            jax.random.fold_in(state.key, 2), state.iteration, 2 * self.tau, state.x
        )
        image = refine(
            self.diffusion,
            lambda x_t, t: self._model(params, x_t, t),
            state.x,
            state.x_adv,
            keep,
            noises,
        )
        image = quantize(image)
        y_final = self._read(params, image)
        miss = state.target - y_final
        y_hat = state.result.curve[state.iteration - 1]
        refined = state.result.replace(image=image, y_final=y_final, mask=keep)
        result = select(jnp.abs(miss) < state.best_miss, refined, state.result)
        success = jnp.abs(result.y_final - state.target) <= self.threshold
        done = success | (state.iteration >= self.iterations)
        judged = state.replace(
            aim=state.target + y_hat - y_final,
            best_miss=jnp.minimum(state.best_miss, jnp.abs(miss)),
            keep=keep,
            stopped=done,
            done=done,
            result=result.replace(success=success),
        )
        return select(state.stopped & ~state.done, judged, state)

    def attack_gradient(
        self, params: Any, x_adv: Array, aim: Array, noises: Array, x: Array, keep: Array
    ) -> tuple[Array, Array, Array]:
        """The squared error of the prediction in F_tau(x') (eq. 9), y^ and the gradient in x'.

        With a mask the regressor reads the input where it is kept: what is left free answers.

        Args:
            params: of generator and regressor.
            x_adv: x' [H, W, C] in [0, 1].
            aim: the value to read.
            noises: [tau, H, W, C].
            x: the input [H, W, C].
            keep: [H, W, 1].

        Returns:
            loss, y^ and d loss / d x'.
        """

        def loss(x_adv: Array) -> tuple[Array, Array]:
            image = keep * x + (1 - keep) * self._denoise(params, x_adv, noises)
            y_hat = self._read(params, image)
            return jnp.square(y_hat - aim), y_hat

        (value, y_hat), gradient = jax.value_and_grad(loss, has_aux=True)(x_adv)
        return value, y_hat, gradient

    def _denoise(self, params: Any, x: Array, noises: Array) -> Array:
        """F_tau of an image in [0, 1], unclipped as in the original."""

        def model(x_t: Array, t: Array) -> Array:
            return self._model(params, x_t, t)

        x_0 = noise_and_denoise(self.diffusion, model, 2 * x - 1, noises, self.remat)
        return x_0 / 2 + 0.5

    def _model(self, params: Any, x_t: Array, t: Array) -> Array:
        return self.denoiser(params["generator"], x_t[None], t[None])[0]

    def _read(self, params: Any, image: Array) -> Array:
        return self.regressor(params["regressor"], image[None])[0]

    @staticmethod
    def _noises(key: Array, iteration: Array | int, count: int, like: Array) -> Array:
        key = jax.random.fold_in(key, iteration)
        return jax.random.normal(key, (count, *like.shape), like.dtype)


def pgd_update(
    x_adv: Array, gradient: Array, step_size: float | Array, gradient_floor: float = 0.0
) -> Array:
    """One signed gradient step, projected onto [0, 1] (the paper's ball never binds).

    The sign moves every value equally far, however little it matters: background that hardly
    moves the prediction drifts as fast as the subject, and refinement then finds nothing to keep.
    A floor holds the values still whose gradient is small beside the largest one.

    Args:
        x_adv: [H, W, C] in [0, 1].
        gradient: d loss / d x_adv.
        step_size: in [0, 1] pixel units.
        gradient_floor: share of the largest absolute gradient; 0 moves everything.
    """
    size = jnp.abs(gradient)
    direction = jnp.where(size >= gradient_floor * size.max(), jnp.sign(gradient), 0)
    return jnp.clip(x_adv - step_size * direction, 0, 1)
