"""Images in work: which image is in which slot, and what happens to it between the programs."""

import collections
import dataclasses
import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np

from diffcf_jax.counterfactual.programs import Programs
from diffcf_jax.counterfactual.types import Counterfactual
from diffcf_jax.errors import Preempted, UserError

_LONGEST_WAIT = 16  # rounds that a stopped image waits for others to be judged with


@dataclasses.dataclass(frozen=True)
class Job:
    """One image to explain.

    Attributes:
        id: the caller's name for it.
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
class Statistics:
    """What a run did; times are of this process.

    Attributes:
        slots: images in work at a time.
        images: finished images.
        iterations: slot-iterations that moved an image on.
        slot_iterations: all slot-iterations, those of idle slots included.
        seconds: from the first image to the last, without compiling.
        compile_seconds: spent on compiling.
        flops: of one iteration of one image.
        peak_flops: a second, of all devices; None where it is not known (`chips.peak_flops`).
    """

    slots: int = 0
    images: int = 0
    iterations: int = 0
    slot_iterations: int = 0
    seconds: float = 0.0
    compile_seconds: float = 0.0
    flops: float = 0.0
    peak_flops: float | None = None


@dataclasses.dataclass
class _Running:
    """An image that was begun; `since` is the first round in its present slot."""

    job: Job
    seconds: float = 0.0
    since: int = 0


class Waiting:
    """What waits for a slot: jobs that are not begun, and states (on the host) that are."""

    def __init__(self, jobs: Iterable[Job]):
        self._unread = iter(jobs)
        self._jobs: collections.deque[Job] = collections.deque()
        self.ready: collections.deque[tuple[_Running, Any]] = collections.deque()

    def __bool__(self) -> bool:
        return bool(self.ready) or self.has_jobs()

    def has_jobs(self) -> bool:
        """Whether a job is left; reads one ahead."""
        if not self._jobs:
            self._jobs.extend(itertools.islice(self._unread, 1))
        return bool(self._jobs)

    def image_shape(self) -> tuple[int, ...]:
        """[H, W, C] of what comes next."""
        job = self._jobs[0] if self.has_jobs() else self.ready[0][0].job
        return job.image.shape

    def take_jobs(self, count: int) -> list[Job]:
        """The next jobs, at most so many."""
        taken = []
        while len(taken) < count and self.has_jobs():
            taken.append(self._jobs.popleft())
        return taken

    def give_back(self, jobs: Iterable[Job]) -> None:
        """Puts jobs before all others."""
        self._jobs.extendleft(jobs)


class Slots:
    """The images in work on one set of compiled programs.

    Off the CPU everything is read one round after it was sent to the devices, when the next step
    is on its way: the devices never wait for the host. A stopped state passes through `step`
    unchanged, so reading late is exact; it costs a slot one step an image.
    """

    def __init__(self, programs: Programs, waiting: Waiting, seed: int, statistics: Statistics):
        self._programs = programs
        self._waiting = waiting
        self._seed = seed
        self._statistics = statistics
        self._lag = int(jax.default_backend() != "cpu")
        self._round = 0
        self._seconds = 0.0  # that these rounds took
        self._states = programs.empty()
        self._slots: list[_Running | None] = [None] * programs.slots
        self._starting: list[Job] = []
        # Each entry begins with the round in which it was sent to the devices.
        self._flags: collections.deque = collections.deque()  # what steps saw
        self._stopped: collections.deque = collections.deque()  # states to be judged
        self._judging: collections.deque = collections.deque()  # groups being judged
        self._clock = time.monotonic()

    def run(self, on_step: Callable[[np.ndarray], None]) -> Iterator[Finished]:
        """Works until nothing is left, or until half of the slots will do.

        Where `on_step` or a job says that the run is to end, what has stopped is still judged.
        """
        try:
            yield from self._work(on_step)
        except (Preempted, UserError):
            yield from self._settle()
            raise

    def _work(self, on_step: Callable[[np.ndarray], None]) -> Iterator[Finished]:
        while True:
            self._refill()
            lag = self._lag
            if any(self._slots):
                self._states, seen = self._programs.step(self._states)
                self._flags.append((self._round, seen))
                self._statistics.slot_iterations += self._programs.slots
            elif self._flags or self._stopped or self._judging:
                lag = 0
            else:
                return
            for misses in self._read(lag):
                on_step(misses)
            self._judge(lag, every=not self._waiting and None in self._slots)
            yield from self._harvest(lag)
            self._round += 1
            if self._half_will_do():
                yield from self._settle()
                self._leave()
                return

    def give_up(self) -> None:
        """Hands every image back that is not finished; it will start again."""
        running = [running for running in self._slots if running]
        running += [running for _, running, _ in self._stopped]
        running += [running for _, group, _ in self._judging for running in group]
        self._waiting.give_back([running.job for running in running] + self._starting)

    def _refill(self) -> None:
        free = [i for i, running in enumerate(self._slots) if running is None]
        ready = self._waiting.ready
        if len(ready) < len(free):
            self._starting = jobs = self._waiting.take_jobs(len(self._slots))
            if jobs:
                images, targets = [job.image for job in jobs], [job.target for job in jobs]
                states = self._programs.init(images, targets, self._seed)
                ready.extend(zip(map(_Running, jobs), states, strict=True))
            self._starting = []
        for i in free[: len(ready)]:
            running, state = ready.popleft()
            running.since = self._round
            self._slots[i] = running
            self._states = self._programs.put(self._states, state, i)

    def _read(self, lag: int) -> Iterator[np.ndarray]:
        """Reads the flags of steps and frees the slots whose images have stopped."""
        while self._due(self._flags, lag):
            round_, seen = self._flags.popleft()
            stopped, misses = map(np.asarray, seen)
            active = [i for i, one in enumerate(self._slots) if one and one.since <= round_]
            seconds, self._clock = time.monotonic() - self._clock, time.monotonic()
            self._seconds += seconds
            self._statistics.seconds += seconds
            self._statistics.iterations += len(active)
            for i in active:
                running = self._slots[i]
                running.seconds += seconds / len(active)
                if stopped[i]:
                    state = self._programs.take(self._states, i)
                    self._stopped.append((self._round, running, state))
                    self._slots[i] = None
            if active:
                yield misses[active]

    def _judge(self, lag: int, every: bool) -> None:
        """Sends stopped images to `finish`: full groups and what has waited long, or every one."""
        size = self._programs.judges
        while self._due(self._stopped, lag):
            full, late = len(self._stopped) >= size, self._due(self._stopped, _LONGEST_WAIT)
            if not (full or late or every):
                return
            due = list(itertools.islice(self._stopped, size))
            judged = self._programs.finish([state for _, _, state in due])
            for _ in due:
                self._stopped.popleft()
            self._judging.append((self._round, [running for _, running, _ in due], judged))

    def _harvest(self, lag: int) -> Iterator[Finished]:
        """Yields what `finish` has accepted; what it has not goes on."""
        while self._due(self._judging, lag):
            _, group, judged = self._judging[0]
            states = self._programs.fetch(judged, len(group))
            self._judging.popleft()
            for running, state in zip(group, states, strict=True):
                if state.done:
                    self._statistics.images += 1
                    yield Finished(running.job, state.result, running.seconds)
                else:
                    self._waiting.ready.append((running, state))

    def _due(self, queue: collections.deque, lag: int) -> bool:
        return bool(queue) and queue[0][0] <= self._round - lag

    def _half_will_do(self) -> bool:
        """Whether so few images are left that it pays to compile for half of the slots."""
        left = sum(map(bool, self._slots)) + len(self._stopped)
        left += sum(len(group) for _, group, _ in self._judging)
        if self._waiting or not 0 < left <= self._programs.slots // 2:
            return False
        if self._programs.slots == self._programs.mesh.size or not self._statistics.images:
            return False
        # Half a step saved, for half of the iterations that an image needs on average.
        done = self._statistics
        saved = self._seconds / self._round / 2 * done.iterations / done.images / 2
        return saved > self._programs.seconds

    def _settle(self) -> Iterator[Finished]:
        """Reads what was sent, and judges and yields every image that has stopped."""
        for _ in self._read(0):
            pass
        self._judge(0, every=True)
        yield from self._harvest(0)

    def _leave(self) -> None:
        """Empties the slots: what is not finished waits, as far as it has come."""
        for i, running in enumerate(self._slots):
            if running:
                state = jax.device_get(self._programs.take(self._states, i))
                self._waiting.ready.append((running, state))
