"""What continuous batching is asked for, and the events that it yields."""

import dataclasses
import hashlib
from typing import Any

import numpy as np

from diffcf_jax.counterfactual.programs import Programs
from diffcf_jax.counterfactual.types import Counterfactual
from diffcf_jax.target import Target


@dataclasses.dataclass(frozen=True)
class Job:
    """One image to explain.

    Attributes:
        id: the caller's name for it.
        image: float32 [H, W, 3] in [0, 1].
        target: what the regressor should read.
        tag: returned with the result.
        allowed: bool [H, W], True where the image may change; None: everywhere.
    """

    id: int
    image: np.ndarray
    target: Target
    tag: Any = None
    allowed: np.ndarray | None = None

    def content(self) -> bytes:
        """What jobs of one image and mask have in common, whatever their targets: a digest."""
        digest = hashlib.blake2b(np.ascontiguousarray(self.image), digest_size=16)
        if self.allowed is not None:
            digest.update(np.packbits(self.allowed))
        return digest.digest()


@dataclasses.dataclass(frozen=True)
class Compiled:
    """The programs for a number of slots are ready; `retry`: memory ran out with more slots."""

    programs: Programs
    retry: bool = False


@dataclasses.dataclass(frozen=True)
class Stepped:
    """One step of all slots has ended.

    Attributes:
        misses: of the images in work, [images], how far y^ is from what counts: |y^ - target|,
            0 inside a range, infinite for an extreme.
        slots: slots of the step, idle ones included.
        seconds: since the step before.
    """

    misses: np.ndarray
    slots: int
    seconds: float


@dataclasses.dataclass(frozen=True)
class Finished:
    """A result.

    Attributes:
        job: the job that was asked for.
        counterfactual: numpy arrays.
        seconds: this image's share of the time that the steps took.
        answer: which one of the job's, from 1.
    """

    job: Job
    counterfactual: Counterfactual
    seconds: float
    answer: int = 1


Event = Compiled | Stepped | Finished


@dataclasses.dataclass(frozen=True)
class Statistics:
    """Sums over the events of a run in this process.

    Attributes:
        slots: largest number of images in work at a time.
        images: finished images.
        iterations: slot-iterations that moved an image on.
        slot_iterations: all slot-iterations, those of idle slots included.
        seconds: spent in steps, without compiling.
        compile_seconds: spent on compiling.
        flops: floating-point operations of one iteration of one image.
    """

    slots: int = 0
    images: int = 0
    iterations: int = 0
    slot_iterations: int = 0
    seconds: float = 0.0
    compile_seconds: float = 0.0
    flops: float = 0.0

    def add(self, event: Event) -> "Statistics":
        """Return the sums with one more event."""
        match event:
            case Compiled(programs):
                return dataclasses.replace(
                    self,
                    slots=max(self.slots, programs.slots),
                    compile_seconds=self.compile_seconds + programs.seconds,
                    flops=programs.flops,
                )
            case Stepped(misses, slots, seconds):
                return dataclasses.replace(
                    self,
                    iterations=self.iterations + len(misses),
                    slot_iterations=self.slot_iterations + slots,
                    seconds=self.seconds + seconds,
                )
            case Finished():
                return dataclasses.replace(self, images=self.images + 1)
