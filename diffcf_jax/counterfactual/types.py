"""What a method is, and what it returns."""

import enum
from collections.abc import Callable
from typing import Any, Protocol

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array
# (variables, images [B, H, W, C] in [0, 1]) -> predictions [B]
Regressor = Callable[[Any, Array], Array]


class Stop(enum.IntEnum):
    """Why a search ended."""

    TARGET = 0  # the saved image meets the target
    ITERATIONS = 1  # they are used up
    PREDICTION = 2  # a prediction is not finite
    GRADIENT = 3  # a gradient is not finite
    FLAT = 4  # the gradient is zero: nothing tells where the target lies
    STALLED = 5  # the prediction no longer comes closer


@flax.struct.dataclass
class Counterfactual:
    """The result for one image.

    Attributes:
        image: [H, W, C] in [0, 1] on the grid of uint8: exactly what is saved.
        reconstruction: [H, W, C] in [0, 1], what the generator makes of the unchanged input.
        y_initial: regressor(input).
        y_reconstruction: regressor(reconstruction).
        y_final: regressor(image).
        success: |y_final - target| <= threshold.
        stop: why the search ended, a `Stop`.
        iterations: optimisation steps done.
        curve: [largest number of iterations] the prediction that each step saw; NaN after the
            last one.
        mask: [H, W, 1], 1 where the input was kept (AC-RE); 0 everywhere for Diff-AE-RE.
    """

    image: Array
    reconstruction: Array
    y_initial: Array
    y_reconstruction: Array
    y_final: Array
    success: Array
    stop: Array
    iterations: Array
    curve: Array
    mask: Array


class State(Protocol):
    """What continuous batching needs to know of a method's state.

    Attributes:
        stopped: the criterion is met or the iterations are used up; `finish` decides.
        done: `finish` has accepted the result.
        result: what to hand out once done.
    """

    stopped: Array
    done: Array
    result: Counterfactual


class Method(Protocol):
    """A counterfactual method: three pure functions of one image.

    `params` is {"generator": variables, "regressor": variables}. No function looks at another
    image, and every draw comes from `key` and the iteration, so that images can be batched, placed
    and interrupted in any way.

    Attributes:
        iterations: steps at most.
        loop_length: turns of the denoising loop per step.
    """

    iterations: int
    loop_length: int

    def init(self, params: Any, image: Array, target: Array, key: Array) -> State:
        """Starts an image [H, W, C] in [0, 1] with its target."""

    def step(self, params: Any, state: State) -> State:
        """One iteration; a stopped state passes through unchanged."""

    def finish(self, params: Any, state: State) -> State:
        """Judges a stopped state by the image that would be saved.

        Sets `done`, or clears `stopped` where the image misses the target and the iterations
        are not used up. A state that has not stopped passes through unchanged.
        """


def quantize(image: Array) -> Array:
    """Clips to [0, 1] and rounds to the grid of uint8, so that what is read is what is saved.

    What is not finite becomes NaN.
    """
    # A table, because XLA divides by 255 with an error in the last bit.
    values = jnp.asarray(np.arange(256) / 255, image.dtype)
    rounded = values[jnp.round(jnp.clip(image, 0, 1) * 255).astype(jnp.uint8)]
    return jnp.where(jnp.isfinite(image), rounded, jnp.nan)


def select(condition: Array, yes: Any, no: Any) -> Any:
    """Chooses between two trees of equal structure by a scalar condition."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)


def stop_code(no_prediction: Array) -> Array:
    """The `Stop` of a search that met a value that is not finite: a prediction or a gradient."""
    return jnp.where(no_prediction, Stop.PREDICTION, Stop.GRADIENT).astype(jnp.int32)
