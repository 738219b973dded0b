"""Figures of the report: heatmaps as pixels, curves and the overview as inline SVG.

The SVG elements carry classes and no colours: the style sheet of the report colours them for a
light and a dark page.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffcf_jax.report.template import macros
from diffcf_jax.target import ends, nearest

_FOLDER = Path(__file__).parent


def heatmap(image: np.ndarray, counterfactual: np.ndarray) -> np.ndarray:
    """Signed change of each pixel, d = mean over channels of (x' - x) in [-1, 1], as a colour.

    Blue is darker, white unchanged, red brighter; the scale is fixed: full blue at -1, full
    red at +1.

    Args:
        image: uint8 [H, W, 3], x.
        counterfactual: uint8 [H, W, 3], x'.

    Returns:
        uint8 [H, W, 3].
    """
    d = (counterfactual.astype(np.float64) - image).mean(-1) / 255  # [H, W]
    red, blue = 1 + np.minimum(d, 0), 1 - np.maximum(d, 0)
    return np.rint(255 * np.stack([red, 1 - np.abs(d), blue], axis=-1)).astype(np.uint8)


def curve_svg(
    curve: Sequence[float | None], target: float | str, threshold: float | None = None
) -> str:
    """Optimisation curve: the prediction at each iteration on its way to the target.

    Args:
        curve: predictions; None where one was not finite.
        target: a number is drawn as a dashed line, a range as a band whose nearer end is dashed;
            min and max are not drawn.
        threshold: half height of the band around a number that counts as success.

    Returns:
        An <svg> element; empty text when no prediction is known.
    """
    width, height, margin = 150.0, 50.0, 4.0
    known = [(i, y) for i, y in enumerate(curve) if y is not None]
    if not known:
        return ""
    bounds, level = ends(target), nearest(known[0][1], target)
    if bounds and bounds[0] == bounds[1]:
        bounds = target - (threshold or 0.0), target + (threshold or 0.0)
    values = [y for _, y in known] + list(bounds or ())
    low, high = min(values), max(values)
    span = max(high - low, 1e-3)
    last = max(len(curve) - 1, 1)

    def px(i: float) -> float:
        return margin + (width - 2 * margin) * i / last

    def py(y: float) -> float:
        return height - margin - (height - 2 * margin) * (y - low) / span

    band = bounds and (py(bounds[1]), max(py(bounds[0]) - py(bounds[1]), 0))
    end, (_, first) = known[-1], known[0]
    return macros(_FOLDER, "figures").curve(
        width, height, first, end[1], len(curve),
        target if isinstance(target, str) else f"{target:.3f}",
        band=band, level=level if level is None else py(level),
        points=_points((px(i), py(y)) for i, y in known), end=(px(end[0]), py(end[1])),
    )  # fmt: skip


def overview_svg(
    results: Sequence[Mapping[str, Any]], threshold: float | None = None, unit: str | None = None
) -> str:
    """Prediction against target, before (hollow) and after (filled), one pair per result.

    The target of a range is that of its values which is nearest to the prediction after; min and
    max are left out.

    Args:
        results: lines of results.jsonl without errors.
        threshold: half height of the band around the diagonal that counts as success.
        unit: of the values, named beside the axes.

    Returns:
        An <svg> element; empty text when there is nothing to draw.
    """
    placed = [
        (nearest(r["target"] if r["y_final"] is None else r["y_final"], r["target"]), r)
        for r in results
        if ends(r["target"])
    ]
    before = [(x, r["y_initial"]) for x, r in placed if r["y_initial"] is not None]
    after = [(x, r["y_final"]) for x, r in placed if r["y_final"] is not None]
    if not after:
        return ""
    values = [value for point in before + after for value in point]
    pad = 0.04 * max(max(values) - min(values), 1e-3)
    low, high = min(values) - pad, max(values) + pad
    left, right, top, bottom = 46.0, 472.0, 10.0, 278.0

    def px(value: float) -> float:
        return left + (right - left) * (value - low) / (high - low)

    def py(value: float) -> float:
        return bottom - (bottom - top) * (value - low) / (high - low)

    band = threshold or 0.0
    corners = [(low, low - band), (high, high - band), (high, high + band), (low, low + band)]
    marks = ticks(low, high)
    return macros(_FOLDER, "figures").overview(
        left, right, top, bottom,
        x_ticks=[(px(tick), f"{tick:g}") for tick in marks],
        y_ticks=[(py(tick), f"{tick:g}") for tick in marks],
        outline=_points((px(x), py(y)) for x, y in corners),
        diagonal=(px(low), py(low), px(high), py(high)),
        before=[(px(x), py(y)) for x, y in before],
        after=[(px(x), py(y)) for x, y in after],
        unit=unit,
    )  # fmt: skip


def _points(points: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def ticks(low: float, high: float) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) between low and high, 2 to 8 of them."""
    step = 10.0 ** math.floor(math.log10(high - low))
    step = next(s for s in (step / 5, step / 2, step, 2 * step) if (high - low) / s <= 7)
    first, last = math.ceil(low / step), math.floor(high / step)
    return [round(i * step, 12) for i in range(first, last + 1)]
