"""Runs a method over many images: every slot of a fixed batch works on an image of its own.

Three compiled programs (`init`, `step`, `finish`), each of a fixed batch, and between them two
queues of single images. An image that stops leaves its slot at once and the next one takes it, so
that no step is spent on finished images while others are waiting.
"""

import collections
import dataclasses
import functools
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffcf_jax.counterfactual.types import Counterfactual, Method


@dataclasses.dataclass(frozen=True)
class Job:
    """One image to explain.

    Attributes:
        id: the image's id; with the seed it determines every random draw.
        image: float32 [H, W, 3] in [0, 1].
        target: the value that the regressor should read, in the regressor's units.
        tag: whatever the caller wants back with the result.
    """

    id: int
    image: np.ndarray
    target: float
    tag: Any = None


@dataclasses.dataclass(frozen=True)
class Finished:
    """A result.

    Attributes:
        job: what was asked.
        counterfactual: numpy arrays.
        seconds: this image's share of the time that the steps took.
    """

    job: Job
    counterfactual: Counterfactual
    seconds: float


@dataclasses.dataclass
class _Running:
    job: Job
    seconds: float = 0.0


def explain_all(
    method: Method,
    params: Any,
    jobs: Iterable[Job],
    batch_size: int,
    seed: int,
    on_step: Callable[[np.ndarray], None] = lambda misses: None,
) -> Iterator[Finished]:
    """Yields the result of every job, in the order in which they finish.

    An image's result depends on (method, params, seed, id, image, target) only: the batch decides
    nothing but the speed.

    Args:
        method: see `types.Method`.
        params: {"generator": variables, "regressor": variables}.
        jobs: read lazily, a batch ahead.
        batch_size: number of slots.
        seed: of all randomness.
        on_step: called after every step with |y^ - target| of the images in work.
    """
    jobs = iter(jobs)
    key = jax.random.key(seed)
    programs = _Programs(method)
    ready: collections.deque[tuple[_Running, Any]] = collections.deque()
    stopped: list[tuple[_Running, Any]] = []
    slots: list[_Running | None] = [None] * batch_size
    states = None  # the slots' states, stacked

    while True:
        # Refill
        if len(ready) < slots.count(None):
            batch = [_Running(job) for _, job in zip(range(batch_size), jobs, strict=False)]
            if batch:
                ready.extend(zip(batch, programs.init(params, batch, batch_size, key), strict=True))
        for i, running in enumerate(slots):
            if running is None and ready:
                slots[i], state = ready.popleft()
                if states is None:
                    states = jax.tree.map(lambda a: jnp.stack([a] * batch_size), state)
                    # Slots that were never filled stand still.
                    states = states.replace(stopped=jnp.ones(batch_size, bool))
                states = programs.put(states, state, i)
        active = [i for i, running in enumerate(slots) if running is not None]
        if not active and not stopped:
            return

        # Step
        if active:
            start = time.monotonic()
            states, flags, misses = programs.step(params, states)
            flags, misses = np.asarray(flags), np.asarray(misses)
            share = (time.monotonic() - start) / len(active)
            on_step(misses[active])
            for i in active:
                slots[i].seconds += share
                if flags[i]:
                    stopped.append((slots[i], programs.take(states, i)))
                    slots[i] = None

        # Finish: a quarter of a batch at a time, or what there is when nothing else is left to do
        group = max(1, batch_size // 4)
        idle = not ready and slots.count(None) == batch_size
        while len(stopped) >= group or (idle and stopped):
            batch, stopped = stopped[:group], stopped[group:]
            judged = programs.finish(params, [state for _, state in batch], group)
            for (running, _), state in zip(batch, judged, strict=True):
                if bool(state.done):
                    result = jax.tree.map(np.asarray, state.result)
                    yield Finished(running.job, result, running.seconds)
                else:
                    ready.appendleft((running, state))


class _Programs:
    """The compiled programs of one method; each is compiled at its first use."""

    def __init__(self, method: Method):
        self._init = jax.jit(jax.vmap(method.init, in_axes=(None, 0, 0, 0)))
        self._finish = jax.jit(jax.vmap(method.finish, in_axes=(None, 0)))

        def step(params: Any, states: Any) -> tuple[Any, jax.Array, jax.Array]:
            states = jax.vmap(method.step, in_axes=(None, 0))(params, states)
            result = states.result
            y_hat = jax.vmap(lambda curve, n: curve[n - 1])(result.curve, result.iterations)
            return states, states.stopped, jnp.abs(y_hat - states.target)

        self.step = jax.jit(step, donate_argnums=1)

    def init(self, params: Any, batch: list[_Running], size: int, key: jax.Array) -> list[Any]:
        """Starts images; a batch that is not full is filled up with its first one."""
        jobs = [running.job for running in batch]
        padded = jobs + [jobs[0]] * (size - len(jobs))
        images = jnp.asarray(np.stack([job.image for job in padded]))
        targets = jnp.asarray([job.target for job in padded], images.dtype)
        keys = jax.vmap(functools.partial(jax.random.fold_in, key))(
            jnp.asarray([job.id for job in padded])
        )
        return _unstack(self._init(params, images, targets, keys), len(jobs))

    def finish(self, params: Any, states: list[Any], size: int) -> list[Any]:
        """Judges stopped states."""
        padded = states + [states[0]] * (size - len(states))
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *padded)
        return _unstack(self._finish(params, stacked), len(states))

    @staticmethod
    @functools.partial(jax.jit, donate_argnums=0)
    def put(states: Any, state: Any, i: int) -> Any:
        """Writes one state into slot i."""
        return jax.tree.map(lambda all_, one: all_.at[i].set(one), states, state)

    @staticmethod
    @jax.jit
    def take(states: Any, i: int) -> Any:
        """Reads the state of slot i."""
        return jax.tree.map(lambda all_: all_[i], states)


def _unstack(states: Any, count: int) -> list[Any]:
    return [jax.tree.map(lambda a, i=i: a[i], states) for i in range(count)]
