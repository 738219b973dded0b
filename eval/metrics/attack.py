"""The control: a plain attack on the pixels, with nothing to keep them an image."""

import collections
import dataclasses
from collections.abc import Iterable, Iterator

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from diffcf_jax.counterfactual.batching import Engine
from diffcf_jax.counterfactual.events import Finished, Job
from diffcf_jax.counterfactual.types import Counterfactual, Query, Stop, select
from diffcf_jax.regressors.readings import Reader
from diffcf_jax.target import nearest

from .batch import EACH, Batch
from .regressor import Judge

LARGEST_STEP = 4 / 255  # of a pixel


def attacked(parts: Iterable[Batch], judge: Judge, threshold: float, steps: int) -> Iterator[Batch]:
    """Yields the results with images whose pixels were moved until the regressor reads the target.

    See `PixelAttack`. The images share no budget: each has its own, and leaves its slot to the next
    one when it is there. Where an image has a mask, pixels move inside of it only. An image whose
    target is min or max stays as it is. The first answer starts from the original, each further one
    from other noise of the size of one step.

    Args:
        parts: the results.
        judge: the explained regressor.
        threshold: in the label's unit.
        steps: gradients per image at most.

    Yields:
        The batches in their order, with the attack's `iterations`. Images are 8-bit values in
        [0, 1], as a saved image has them; dithered, because rounding would undo changes of less
        than half a level.
    """
    unit, variables = judge.reader.unit, {"regressor": judge.reader.variables}
    method = PixelAttack(judge.reader, threshold / abs(unit.scale), steps)
    slots = EACH * jax.local_device_count()
    engine = Engine(method, variables, slots, seed=0)
    begun: collections.deque[tuple[Batch, int]] = collections.deque()
    made: dict[int, Counterfactual] = {}

    def jobs() -> Iterator[Job]:
        first = 0
        for batch in parts:
            begun.append((batch, first))
            masks = [None] * len(batch.rows) if batch.allowed is None else batch.allowed
            each = zip(batch.rows, batch.inputs, masks, judge(batch.inputs), strict=True)
            for i, (row, image, mask, y) in enumerate(each, first):
                wanted = nearest(float(y), row["target"])
                aim = unit.normalise(np.float64(y if wanted is None else wanted))
                yield Job(i, _start(image, row["answer"], mask), float(aim), allowed=mask)
            first += len(batch.rows)

    for event in engine.run(jobs()):
        if not isinstance(event, Finished):
            continue
        made[event.job.id] = event.counterfactual
        while begun and all(i in made for i in _places(*begun[0])):
            batch, first = begun.popleft()
            found = [made.pop(i) for i in _places(batch, first)]
            rows = [
                {**row, "iterations": int(one.iterations)}
                for row, one in zip(batch.rows, found, strict=True)
            ]
            images = np.stack([_saved(one.image) for one in found])
            yield dataclasses.replace(batch, rows=rows, images=images)


@flax.struct.dataclass
class AttackState:
    """An image in work; see `counterfactual.types.State`."""

    query: Query
    stopped: jax.Array
    done: jax.Array
    result: Counterfactual


@dataclasses.dataclass(frozen=True)
class PixelAttack:
    """Signed steps of the size that the linearised prediction needs, as a `types.Method`.

        x <- clip(x + s sign(g), 0, 1),    s = (aim - y) / sum |g|, at most 4/255

    with g = 0 where the image may not change, until y is within half of the threshold, or
    `iterations` gradients have been computed.

    Attributes:
        reader: the regressor.
        threshold: in what it predicts.
        iterations: gradients at most.
    """

    reader: Reader
    threshold: float
    iterations: int
    shares_first_step = False
    answers = 1

    def init(self, params: dict, query: Query, key: jax.Array) -> AttackState:
        """Starts an image."""
        image, zero, no = query.image, jnp.zeros(()), jnp.zeros((), bool)
        result = Counterfactual(
            image=image, reconstruction=image[:0], y_initial=zero, y_reconstruction=zero,
            y_final=zero, success=no, stop=jnp.full((), Stop.ITERATIONS, jnp.int32),
            iterations=jnp.zeros((), jnp.int32), curve=jnp.full(self.iterations, jnp.nan),
            mask=image[:0],
        )  # fmt: skip
        return AttackState(query, no, no, result)

    def step(self, params: dict, state: AttackState) -> AttackState:
        """One gradient; an image that has stopped passes through unchanged."""
        found = state.result
        y, g = jax.value_and_grad(lambda x: self.reader.apply(params["regressor"], x[None])[0])(
            found.image
        )
        g = g * state.query.allowed
        gap = state.query.aim[0] - y
        there = jnp.abs(gap) <= self.threshold / 2
        size = jnp.clip(gap / jnp.maximum(jnp.abs(g).sum(), 1e-12), -LARGEST_STEP, LARGEST_STEP)
        size = jnp.where(there | ~jnp.isfinite(size), 0, size)
        count = found.iterations + 1
        moved = state.replace(
            stopped=there | (count >= self.iterations),
            result=found.replace(
                image=jnp.clip(found.image + size * jnp.sign(g), 0, 1),
                y_final=y, success=there, iterations=count, curve=found.curve.at[count - 1].set(y),
            ),
        )  # fmt: skip
        return select(state.stopped, state, moved)

    def finish(self, params: dict, state: AttackState) -> AttackState:
        """Accepts what there is: the saved image is judged by the metrics."""
        return state.replace(done=state.stopped)


def _start(image: np.ndarray, answer: int, allowed: np.ndarray | None) -> np.ndarray:
    """Where the attack for an answer starts."""
    if answer == 1:
        return image
    noise = np.random.default_rng(answer).uniform(-LARGEST_STEP, LARGEST_STEP, image.shape)
    if allowed is not None:
        noise *= allowed[..., None]
    return np.clip(image + noise, 0, 1).astype(np.float32)


def _saved(image: np.ndarray) -> np.ndarray:
    """An image [H, W, 3] in 8 bits."""
    levels = np.floor(image * 255 + np.random.default_rng(0).random(image.shape))
    return (np.clip(levels, 0, 255) / 255).astype(np.float32)


def _places(batch: Batch, first: int) -> range:
    return range(first, first + len(batch.rows))
