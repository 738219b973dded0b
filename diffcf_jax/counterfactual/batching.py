"""Continuous batching: every slot of a fixed batch works on an image of its own.

Three compiled programs (`init`, `step`, `finish`, see `programs`) and queues of single images
between them. An image that stops leaves its slot at once and the next one takes it, so that no
step is spent on finished images while others are waiting.
"""

import collections
import dataclasses
import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np

from diffcf_jax import parallel
from diffcf_jax.counterfactual.events import Compiled, Event, Finished, Job, Stepped
from diffcf_jax.counterfactual.memory import out_of_memory
from diffcf_jax.counterfactual.programs import Programs, compile_programs, largest_programs
from diffcf_jax.counterfactual.types import Method
from diffcf_jax.errors import Preempted, UserError

_MOST_TARGETS = 16  # per slot, that are started at a time
_LONGEST_WAIT = 16  # rounds that a stopped image waits for others to be judged with


class Engine:
    """Runs a method over any number of images and keeps its compiled programs.

    An image's result depends on (method, params, seed, image, mask, target) only: batch, devices
    and neighbours decide nothing but the speed. Several targets of an image, if they are asked for
    one after the other, share what comes before the target matters, such as Diff-AE-RE's inversion
    and Newton's first gradient. Several answers for one target are searched one after the other.
    The work is spread over the devices of this process.

    Args:
        method: see `types.Method`.
        params: {"generator": variables, "regressor": variables}.
        batch_size: number of slots, rounded up to a multiple of the number of devices; "auto": as
            many as fit into memory. Where memory runs out, the run goes on with half.
        seed: seed of all randomness.
    """

    def __init__(self, method: Method, params: Any, batch_size: int | str, seed: int):
        self._method = method
        self._mesh = parallel.data_mesh(jax.local_devices())
        self._params = parallel.replicate(params, self._mesh)
        self._batch_size = batch_size
        self._seed = seed
        # By the shape of the images and the number of slots that was asked for.
        self._compiled: dict[tuple[tuple[int, ...], int], Programs] = {}

    def run(
        self,
        jobs: Iterable[Job],
        count: int | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> Iterator[Event]:
        """Yield what happens; each job has a `Finished` per answer, as they finish.

        Args:
            jobs: read lazily, a batch ahead.
            count: number of jobs where it is known; slots are then not many more than images.
            check: called after every step; where it, or reading a job, raises `Preempted` or
                `UserError`, images that have stopped are still judged and yielded before that
                error leaves.

        Raises:
            UserError: not even one image per device fits into memory.
        """
        waiting, devices, retry = _Waiting(jobs), self._mesh.size, False
        while waiting:
            shape, wanted = waiting.image_shape(), self._wanted(count)
            slots, batch = wanted, None
            try:
                if (shape, wanted) not in self._compiled:
                    self._compiled[shape, wanted] = self._compile(shape, wanted)
                    yield Compiled(self._compiled[shape, wanted], retry)
                programs = self._compiled[shape, wanted]
                slots, batch = programs.slots, _Batch(programs, waiting, self._seed)
                yield from batch.run(check)
            except jax.errors.JaxRuntimeError as error:
                if not out_of_memory(error):
                    raise
                if slots == devices or self._batch_size == "auto" and batch is None:
                    raise UserError(
                        "One image per device does not fit into memory: set method.remat to step "
                        "or block, or take smaller networks or a device with more memory."
                    ) from error
                if batch is not None:
                    batch.give_up()
                self._batch_size, retry = max(1, slots // (2 * devices)) * devices, True
                self._compiled.clear()

    def _wanted(self, count: int | None) -> int:
        """Number of slots, at most for "auto": a multiple of the number of devices."""
        devices = self._mesh.size
        if self._batch_size == "auto":
            # At least four images per slot, so that few slots wait for the last image.
            wanted = 1024 * devices if count is None else -(-count // 4)
        else:
            wanted = min(self._batch_size, count or self._batch_size)
        return -(-wanted // devices) * devices

    def _compile(self, shape: tuple[int, ...], wanted: int) -> Programs:
        compile_ = largest_programs if self._batch_size == "auto" else compile_programs
        return compile_(self._method, self._params, shape, slots=wanted, mesh=self._mesh)


@dataclasses.dataclass
class _Slot:
    """One image in work.

    Attributes:
        job: its job.
        state: its state on the host, while it is in no slot of the batch.
        since: the round in which it entered its slot or queue.
        seconds: its share of the time that steps took.
        answer: which one of the job is searched, from 1.
        start: the state from which this answer is searched.
    """

    job: Job
    state: Any
    since: int = 0
    seconds: float = 0.0
    answer: int = 1
    start: Any = None

    @classmethod
    def begin(cls, job: Job, start: Any, answer: int) -> "_Slot":
        return cls(job, start, answer=answer, start=start)


@dataclasses.dataclass(frozen=True)
class _Sent:
    """What was sent to the devices in a round, to be read later.

    Attributes:
        since: the round.
        slots: the images concerned; None where a slot is idle.
        result: on the devices.
    """

    since: int
    slots: list[_Slot | None]
    result: Any


class _Waiting:
    """What waits for a slot: jobs that are not begun, and slots that are."""

    def __init__(self, jobs: Iterable[Job]):
        self._unread = iter(jobs)
        self._jobs: collections.deque[Job] = collections.deque()
        self.ready: collections.deque[_Slot] = collections.deque()

    def __bool__(self) -> bool:
        return bool(self.ready) or self.has_jobs()

    def has_jobs(self) -> bool:
        """Whether a job is left; reads one ahead."""
        if not self._jobs:
            self._jobs.extend(itertools.islice(self._unread, 1))
        return bool(self._jobs)

    def image_shape(self) -> tuple[int, ...]:
        """[H, W, C] of what comes next."""
        return (self._jobs[0] if self.has_jobs() else self.ready[0].job).image.shape

    def take_jobs(self, count: int) -> list[Job]:
        """The next jobs of at most `count` images, with all targets of each but for a limit."""
        taken, images = [], set()
        while len(taken) < _MOST_TARGETS * count and self.has_jobs():
            images.add(self._jobs[0].content())
            if len(images) > count:
                break
            taken.append(self._jobs.popleft())
        return taken

    def give_back(self, jobs: Iterable[Job]) -> None:
        """Puts jobs before all others."""
        self._jobs.extendleft(jobs)


class _Batch:
    """The images in work on one set of compiled programs.

    Off the CPU everything is read one round after it was sent to the devices, when the next step
    is on its way: the devices never wait for the host. A stopped state passes through `step`
    unchanged, so reading late is exact; it costs each image one step of its slot.
    """

    def __init__(self, programs: Programs, waiting: _Waiting, seed: int):
        self._programs = programs
        self._waiting = waiting
        self._seed = seed
        self._lag = int(jax.default_backend() != "cpu")
        self._round = 0
        self._states = programs.empty()
        self._slots: list[_Slot | None] = [None] * programs.slots
        self._starting: list[Job] = []
        self._steps: collections.deque[_Sent] = collections.deque()
        self._stopped: collections.deque[_Slot] = collections.deque()
        self._judging: collections.deque[_Sent] = collections.deque()
        self._clock = time.monotonic()

    def run(self, check: Callable[[], None]) -> Iterator[Event]:
        """Works until nothing is left; see `Engine.run`."""
        try:
            yield from self._work(check)
        except (Preempted, UserError):
            yield from self._read(0)
            self._judge(0, every=True)
            yield from self._harvest(0)
            raise

    def give_up(self) -> None:
        """Hands back every image that is not finished; it will start again."""
        slots = [*self._slots, *self._stopped]
        slots = [slot for slot in slots if slot]
        slots += [slot for group in self._judging for slot in group.slots]
        # Answers that are out already stay.
        begun = [_Slot.begin(s.job, s.start, s.answer) for s in slots if s.answer > 1]
        self._waiting.ready.extend(begun)
        self._waiting.give_back([s.job for s in slots if s.answer == 1] + self._starting)

    def _work(self, check: Callable[[], None]) -> Iterator[Event]:
        while True:
            self._refill()
            lag = self._lag
            if any(self._slots):
                self._states, seen = self._programs.step(self._states)
                self._steps.append(_Sent(self._round, list(self._slots), seen))
            elif self._steps or self._stopped or self._judging:
                lag = 0
            else:
                return
            yield from self._read(lag)
            check()
            self._judge(lag, every=not self._waiting and None in self._slots)
            yield from self._harvest(lag)
            self._round += 1

    def _refill(self) -> None:
        free = [i for i, slot in enumerate(self._slots) if slot is None]
        ready = self._waiting.ready
        if len(ready) < len(free):
            self._starting = jobs = self._waiting.take_jobs(len(self._slots))
            if jobs:
                states = self._programs.init(jobs, self._seed)
                ready.extend(_Slot.begin(*begun, 1) for begun in zip(jobs, states, strict=True))
            self._starting = []
        for i in free[: len(ready)]:
            slot = ready.popleft()
            self._states = self._programs.put(self._states, slot.state, i)
            slot.state, slot.since = None, self._round
            self._slots[i] = slot

    def _read(self, lag: int) -> Iterator[Stepped]:
        """Reads the flags of steps and frees the slots whose images have stopped."""
        while self._due(self._steps, lag):
            step = self._steps.popleft()
            stopped, misses = map(np.asarray, step.result)
            # A slot that was freed since then has been read already.
            active = [i for i, slot in enumerate(step.slots) if slot and slot is self._slots[i]]
            seconds, self._clock = time.monotonic() - self._clock, time.monotonic()
            for i in active:
                slot = step.slots[i]
                slot.seconds += seconds / len(active)
                if stopped[i]:
                    slot.state = self._programs.take(self._states, i)
                    slot.since = self._round
                    self._stopped.append(slot)
                    self._slots[i] = None
            yield Stepped(misses[active], len(step.slots), seconds)

    def _judge(self, lag: int, every: bool) -> None:
        """Sends stopped images to `finish`: full groups and what has waited long, or every one."""
        size = self._programs.judges
        while self._due(self._stopped, lag):
            full, late = len(self._stopped) >= size, self._due(self._stopped, _LONGEST_WAIT)
            if not (full or late or every):
                return
            group = list(itertools.islice(self._stopped, size))
            judged = self._programs.finish([slot.state for slot in group])
            for _ in group:
                self._stopped.popleft()
            self._judging.append(_Sent(self._round, group, judged))

    def _harvest(self, lag: int) -> Iterator[Finished]:
        """Yields what `finish` has accepted; what it has not goes on."""
        while self._due(self._judging, lag):
            group = self._judging[0]
            states = self._programs.fetch(group.result, len(group.slots))
            self._judging.popleft()
            for slot, state in zip(group.slots, states, strict=True):
                if state.done:
                    yield Finished(slot.job, state.result, slot.seconds, slot.answer)
                    if slot.answer < self._programs.method.answers:
                        start = self._programs.another(slot.start, state)
                        begun = _Slot.begin(slot.job, start, slot.answer + 1)
                        self._waiting.ready.append(begun)
                else:
                    slot.state = state
                    self._waiting.ready.append(slot)

    def _due(self, queue: collections.deque, lag: int) -> bool:
        return bool(queue) and queue[0].since <= self._round - lag
