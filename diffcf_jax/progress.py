"""The progress bar of explain.py."""

import math
import sys
from typing import Self

import numpy as np
import tqdm


class Progress:
    """Images done, mean |y^ - y~| of those in work, success so far, time left.

    Args:
        done: images that earlier runs have finished; they do not count into the time left.
        total: these and what is to do.
        silent: tell nothing, as all processes of a run but one do.
    """

    def __init__(self, done: int, total: int, silent: bool = False):
        self._bar = tqdm.tqdm(
            initial=done, total=total, unit="image", dynamic_ncols=True, smoothing=0.05,
            disable=silent,
        )  # fmt: skip
        self._successes = self._results = 0
        self._miss = math.nan

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def tell(self, line: str) -> None:
        """Writes a line above the bar."""
        if not self._bar.disable:
            self._bar.write(line, file=sys.stderr)

    def on_step(self, misses: np.ndarray) -> None:
        """Shows |y^ - y~| of the images in work."""
        misses = misses[np.isfinite(misses)]
        self._miss = float(misses.mean()) if misses.size else math.nan
        self._show()

    def finished(self, success: bool) -> None:
        """Counts a result."""
        self._results += 1
        self._successes += success
        self._show()
        self._bar.update()

    def failed(self) -> None:
        """Counts an image that cannot be explained."""
        self._bar.update()

    def _show(self) -> None:
        success = f"{self._successes}/{self._results}"
        self._bar.set_postfix_str(f"|y-target| {self._miss:.3f}, success {success}")
