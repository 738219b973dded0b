"""What a prediction is to become: a number, a range, or as low or as high as it can be."""

import dataclasses
import math
import re
from collections.abc import Sequence

import numpy as np

from diffcf_jax.errors import UserError

EXTREMES = ("min", "max")

_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_MARGIN = 0.1  # of a range's width, which the solver aims at inside of it
_FAR = 100  # how far beyond 1 + |y_initial| the solver aims where there is no end to reach


@dataclasses.dataclass(frozen=True)
class Range:
    """A target that any prediction between two ends meets; the threshold does not widen it.

    Attributes:
        low: its lower end, in the regressor's unit.
        high: its upper end.

    Raises:
        UserError: an end is not finite in float32, or low is not below high.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        with np.errstate(over="ignore", invalid="ignore"):
            ends = np.asarray([self.low, self.high], np.float32)
        if not np.isfinite(ends).all():
            raise UserError(f"The range {self.low}..{self.high} has an end that is not finite.")
        if not ends[0] < ends[1]:
            raise UserError(
                f"The range {self} has no room between its ends: write the lower end first, such "
                "as 40..50, or give one number."
            )

    def __str__(self) -> str:
        return f"{_short(self.low)}..{_short(self.high)}"


Target = float | Range | str  # a text is one of `EXTREMES`


def parse_target(text: str) -> Target:
    """Read "0.2", "40..50", "min" or "max".

    Raises:
        UserError: it is a range without room between its ends.
        ValueError: it is something else.
    """
    text = text.strip()
    if text in EXTREMES:
        return text
    parts = [part.strip() for part in text.split("..", 1)]
    if not all(map(_NUMBER.fullmatch, parts)):
        raise ValueError(f"'{text}' is no target")
    numbers = [float(part) for part in parts]
    return Range(*numbers) if len(numbers) == 2 else numbers[0]


def plain(target: Target) -> float | str:
    """Return a target as JSON has it: a number, or the text of a range or an extreme.

    A number is the shortest decimal that float32 rounds to the same value.
    """
    if isinstance(target, str):
        target = parse_target(target)
    if isinstance(target, Range | str):
        return str(target)
    return float(str(np.float32(target)))


def ends(target: Target) -> tuple[float, float] | None:
    """Return the lowest and the highest prediction that a target asks for; None if extreme."""
    if isinstance(target, str):
        target = parse_target(target)
    if isinstance(target, str):
        return None
    return (target.low, target.high) if isinstance(target, Range) else (target, target)


def nearest(y: float, target: Target) -> float | None:
    """Return what is nearest to y of all that a target asks for; None if it is extreme."""
    bounds = ends(target)
    return bounds and min(max(y, bounds[0]), bounds[1])


def inside(target: Target, support: Range) -> float:
    """Return 1 if a target lies in a range, as a whole, else 0; NaN where it is extreme."""
    if (reached := ends(target)) is None:
        return math.nan
    low, high = np.float32(support.low), np.float32(support.high)
    return float(low <= np.float32(reached[0]) and np.float32(reached[1]) <= high)


def bounds(target: Target, y_initial: float) -> tuple[np.ndarray, np.ndarray]:
    """Return `accept` and `aim` of a `Query`, each [low, high] in float32.

    Inside a range the solver aims at a tenth of its width from the nearer end. An extreme accepts
    nothing, and its aim lies so far outside that no search gets there, and finite.
    """
    if isinstance(target, str):
        sign = -1.0 if target == "min" else 1.0
        far = y_initial + sign * _FAR * (1 + abs(y_initial))
        return np.full(2, sign * np.inf, np.float32), np.full(2, far, np.float32)
    low, high = ends(target)
    margin = _MARGIN * (high - low)
    return np.asarray([low, high], np.float32), np.asarray([low + margin, high - margin], "f4")


def as_text(targets: Sequence[Target]) -> str:
    """Return targets for a message."""
    return ", ".join(str(t) if isinstance(t, Range | str) else f"{t:g}" for t in targets)


def _short(value: float) -> str:
    return str(float(str(np.float32(value)))).removesuffix(".0")
