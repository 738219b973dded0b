"""Progress output and final summary of a training run."""

import contextlib
import dataclasses
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tqdm

from diffcf_jax.training.metrics import MetricWriter, lines_until

_EVALUATED = "test/"  # before the names of what is measured on held-out images


class Clock:
    """Updates per second, without evaluations, saves and compilation."""

    def __init__(self) -> None:
        self._since = time.monotonic()
        self._seconds, self._updates = 0.0, 0
        self._lap = (0.0, 0)

    def tick(self) -> None:
        """Counts one update."""
        self._updates += 1

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Leaves out the time that the block takes."""
        self._read()
        yield
        self._since = time.monotonic()

    def lap(self) -> float:
        """Updates per second since the last call."""
        before, self._lap = self._lap, (self._read(), self._updates)
        return _ratio(self._lap[1] - before[1], self._lap[0] - before[0])

    def rate(self) -> float:
        """Updates per second, of all updates."""
        return _ratio(self._updates, self._seconds)

    def _read(self) -> float:
        now = time.monotonic()
        self._seconds, self._since = self._seconds + now - self._since, now
        return self._seconds


class Reporter:
    """Progress bar, metrics and pictures, which one process of a run writes.

    Args:
        workdir: see `MetricWriter`.
        start: updates done before.
        steps: updates in all.
        silent: print and write nothing.
    """

    def __init__(self, workdir: Path, start: int, steps: int, silent: bool):
        self._writer = None if silent else MetricWriter(workdir, start)
        self._bar = tqdm.tqdm(
            total=steps, initial=start, unit="step", dynamic_ncols=True, disable=silent
        )

    def __enter__(self) -> "Reporter":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
        if self._writer:
            self._writer.close()

    def update(self) -> None:
        """Counts one update."""
        self._bar.update()

    def log(self, step: int, values: Mapping[str, float], images_per_second: float) -> None:
        """Writes what was measured in training."""
        if self._writer:
            scalars = {f"train/{name}": value for name, value in values.items()}
            self._writer.scalars(step, {**scalars, "images_per_second": images_per_second})
            self._bar.set_postfix(loss=f"{values['loss']:.4f}", refresh=False)

    def evaluated(
        self, step: int, metrics: Mapping[str, float], rows: list[np.ndarray] | None
    ) -> None:
        """Writes and prints what was measured on held-out images, and pictures of some of them."""
        if self._writer:
            self._writer.scalars(step, {_EVALUATED + name: v for name, v in metrics.items()})
            if rows is not None:
                self._writer.picture(step, rows)
            self._bar.write(f"step {step}: {_listed(metrics)}")


def last_evaluation(workdir: Path, step: int) -> dict[str, Any]:
    """`step` and `metrics` of the last evaluation that was written up to a step; else step 0."""
    last = {"step": 0, "metrics": {}}
    for row in map(json.loads, lines_until(workdir, step)):
        metrics = {
            name.removeprefix(_EVALUATED): value
            for name, value in row.items()
            if name.startswith(_EVALUATED)
        }
        if metrics:
            last = {"step": row["step"], "metrics": metrics}
    return last


@dataclasses.dataclass(frozen=True)
class Summary:
    """Final summary of a training run.

    Attributes:
        workdir: the folder of all files.
        step: updates done.
        seconds: of this run.
        images_per_second: of the updates of this run; 0 if there were none.
        flops_per_second: of all devices, see `count_flops`.
        flop_utilisation: share of the devices' peak in bfloat16; None where that is not known.
        metrics: the last evaluation.
        best: `step` and `metrics` of the best one.
        judged_by: the metric that chooses it.
        skipped: files that could not be read.
    """

    workdir: Path
    step: int
    seconds: float
    images_per_second: float
    flops_per_second: float
    flop_utilisation: float | None
    metrics: dict[str, float]
    best: dict[str, Any]
    judged_by: str
    skipped: int

    def __str__(self) -> str:
        """The final report."""
        speed = ""
        if self.images_per_second:
            share = self.flop_utilisation
            speed = (
                f" at {self.images_per_second:.1f} images per second "
                f"({self.flops_per_second / 1e12:.3g} TFLOP/s"
                f"{f', {share:.0%} of the peak' if share is not None else ''})"
            )
        best = self.best["metrics"][self.judged_by]
        lines = [
            f"{self.step} updates, {self.seconds:.0f} s in this run{speed}: "
            f"{_listed(self.metrics)}",
            f"The network is in {self.workdir / 'network'}",
            f"The best one on held-out images, {self.judged_by} {best:.4g} after "
            f"{self.best['step']} updates, is in {self.workdir / 'best'}",
        ]
        if self.skipped:
            lines.append(f"{self.skipped} files could not be read and were skipped")
        return "\n".join(lines)


def _listed(metrics: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())


def _ratio(count: int, seconds: float) -> float:
    return count / seconds if seconds else 0.0
