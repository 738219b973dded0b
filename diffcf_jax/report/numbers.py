"""Numbers of the report as text."""

import math
from collections.abc import Iterable
from typing import Any

from diffcf_jax.results.summary import Interval


def digits_of(values: Iterable[float | None]) -> int:
    """Digits after the point that tell a thousandth of the largest value."""
    largest = max((abs(value) for value in values if value is not None), default=1.0)
    return min(max(3 - round(math.log10(largest or 1.0)), 0), 9)


def with_unit(text: str, unit: str | None) -> str:
    """The text, and the unit where there is one."""
    return f"{text} {unit}" if unit else text


def percent(share: float) -> str:
    """A share in percent, with a digit after the point where it has one below a hundred."""
    return f"{100 * share:.1f}".removesuffix(".0") + "%"


def mean_of(name: str, interval: Interval, digits: int) -> tuple[str, str]:
    """The mean and the interval of a metric; a dash and empty text where they are not known.

    Args:
        name: of the metric; rates are in percent, what has a unit has `digits` + 1 digits.
        interval: of `bootstrap_mean`.
        digits: of predictions.
    """
    unit = interval.get("unit")

    def text(value: Any) -> str:
        if "success" in name:
            return percent(value)
        if unit:
            return f"{value:.{digits + 1}f}"
        if name in ("iterations", "seconds") or abs(value) >= 1000:
            return f"{value:.1f}"
        return f"{value:.4f}" if abs(value) >= 1e-3 or not value else f"{value:.1e}"

    if interval["mean"] is None:
        return "–", ""
    between = ""
    if interval["low"] is not None:
        between = f"{text(interval['low'])} to {text(interval['high'])}"
    return with_unit(text(interval["mean"]), unit), between


def duration(seconds: float) -> str:
    """A time in the units that a person would use."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"
