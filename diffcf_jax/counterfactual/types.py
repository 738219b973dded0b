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
class Query:
    """What one search is asked for.

    Attributes:
        image: the input x [H, W, C] in [0, 1].
        allowed: [H, W, 1], 1 where the image may change; elsewhere it stays to the last bit.
        accept: [2], the lowest and the highest prediction that counts; equal for one number, both
            infinite where no prediction is far enough.
        aim: [2], what the solver steps towards: the value between these that is nearest to y.
    """

    image: Array
    allowed: Array
    accept: Array
    aim: Array

    @classmethod
    def of(cls, image: Array, target: Array | float, allowed: Array | None = None) -> "Query":
        """Return the query for one number."""
        target = jnp.full(2, target, image.dtype)
        allowed = jnp.ones_like(image[..., :1]) if allowed is None else allowed
        return cls(image, allowed, target, target)

    def distance(self, y: Array) -> Array:
        """How far y is from what counts: 0 inside a range."""
        return jnp.abs(jnp.clip(y, *self.accept) - y)

    def met(self, y: Array, threshold: Array | float) -> Array:
        """Whether y counts: within the threshold of a number, or inside a range."""
        distance = self.distance(y)
        return jnp.where(self.accept[0] < self.accept[1], distance <= 0, distance <= threshold)

    def miss(self, y: Array) -> Array:
        """clip(y, aim) - y, how far and in which direction y is to move; its derivative is -1."""
        return jax.lax.stop_gradient(jnp.clip(y, *self.aim)) - y

    def inside(self, image: Array) -> Array:
        """The image where it may change, and the input elsewhere."""
        return jnp.where(self.allowed > 0, image, self.image)


@flax.struct.dataclass
class Counterfactual:
    """The result for one image.

    Attributes:
        image: [H, W, C] in [0, 1] on the grid of uint8: exactly what is saved.
        reconstruction: [H, W, C] in [0, 1], what the generator makes of the unchanged input.
        y_initial: regressor(input).
        y_reconstruction: regressor(reconstruction).
        y_final: regressor(image).
        success: |y_final - target| <= threshold, or y_final lies in the range that was asked for.
        stop: why the search ended, a `Stop`.
        iterations: optimisation steps done.
        curve: [largest number of iterations] the prediction that each step saw; NaN after the
            last one.
        mask: [H, W, 1], 1 where the input was kept: by AC-RE or the hybrid, and by a mask.
        codes: [2, D] the semantic codes of the input and of `image` (of the hybrid: of what was set
            into the input); None for a method without.
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
    codes: Array | None = None


class State(Protocol):
    """What continuous batching needs to know of a method's state.

    Attributes:
        query: what the search is asked for; its `accept` and `aim` may be exchanged after `init`
            (and the first step, see `Method.shares_first_step`), which looks at neither.
        stopped: the criterion is met or the iterations are used up; `finish` decides.
        done: `finish` has accepted the result.
        result: what to hand out once done.
    """

    query: Query
    stopped: Array
    done: Array
    result: Counterfactual


class Method(Protocol):
    """A counterfactual method: three pure functions of one image.

    `params` is {"generator": variables, "regressor": variables}, and "refiner" for a method that
    takes two generators. No function looks at another
    image, and every draw comes from `key` and the iteration, so that images can be batched, placed
    and interrupted in any way.

    Attributes:
        iterations: steps at most.
        loop_length: turns of the denoising loop per step.
        shares_first_step: the first step looks at neither `accept` nor `aim` of the query, so that
            it serves all targets of an image.
        answers: per image and target; where there are several, `another(start, found)` is the
            state from which the search after `found` starts, `start` being that of this one.
    """

    iterations: int
    loop_length: int
    shares_first_step: bool
    answers: int

    def init(self, params: Any, query: Query, key: Array) -> State:
        """Starts an image; `accept` and `aim` of its query decide nothing here."""

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


def advance(state: Any, moved: Any) -> Any:
    """The state after a step: `moved`, or the old one where it has stopped.

    Where the input itself lies in the range that was asked for, the first step ends the search
    with it. `init` leaves the input as it would be saved in `result`, with its prediction.
    """
    start, (low, high) = state.result, state.query.accept
    inside = (start.iterations == 0) & (low < high) & state.query.met(start.y_final, 0)
    yes = jnp.ones((), bool)
    kept = start.replace(
        success=yes,
        stop=jnp.full_like(start.stop, Stop.TARGET),
        reconstruction=moved.result.reconstruction,
        y_reconstruction=moved.result.y_reconstruction,
    )
    kept = state.replace(stopped=yes, done=yes, result=kept)
    return select(state.stopped, state, select(inside, kept, moved))


def stop_code(no_prediction: Array) -> Array:
    """The `Stop` of a search that met a value that is not finite: a prediction or a gradient."""
    return jnp.where(no_prediction, Stop.PREDICTION, Stop.GRADIENT).astype(jnp.int32)
