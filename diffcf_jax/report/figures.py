"""Figures of the report: heatmaps as pixels, the overview as inline SVG.

The SVG elements carry classes and no colours: the style sheet of the report colours them for a
light and a dark page.
"""

import dataclasses
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


@dataclasses.dataclass(frozen=True)
class Achieved:
    """What was achieved against what was asked for, as points of a plot.

    Attributes:
        level: the target, where all results have the same one; x is then the prediction before.
            None: x is the target.
        before: (x, prediction before, result); of several targets only.
        after: (x, prediction after, result).
    """

    level: float | None
    before: Sequence[tuple[float, float, Mapping[str, Any]]]
    after: Sequence[tuple[float, float, Mapping[str, Any]]]


def achieved(results: Sequence[Mapping[str, Any]]) -> Achieved:
    """Place results, the last of them first; those without a number, min and max are left out.

    The target of a range is that of its values which is nearest to the prediction after.

    Args:
        results: lines of results.jsonl without errors.
    """
    placed = [
        (nearest(r["target"] if r["y_final"] is None else r["y_final"], r["target"]), r)
        for r in reversed(results)
        if ends(r["target"])
    ]
    targets = {target for target, _ in placed}
    level = targets.pop() if len(targets) == 1 and len(placed) > 1 else None
    if level is not None:
        placed = [(r["y_initial"], r) for _, r in placed if r["y_initial"] is not None]
    before = [(x, r["y_initial"], r) for x, r in placed if r["y_initial"] is not None]
    after = [(x, r["y_final"], r) for x, r in placed if r["y_final"] is not None]
    return Achieved(level, before if level is None else [], after)


def overview_svg(
    results: Sequence[Mapping[str, Any]],
    threshold: float | None = None,
    unit: str | None = None,
    numbers: Mapping[int, int] | None = None,
) -> str:
    """Draw `achieved`: prediction against target, before (hollow) and after (filled).

    Args:
        results: lines of results.jsonl without errors; the first are drawn last, on top.
        threshold: half height of the band around the target that counts as success.
        unit: of the values, named beside the axes.
        numbers: id(result) -> what its points get as `data-case`.

    Returns:
        An <svg> element; empty text when there is nothing to draw.
    """
    found = achieved(results)
    level, before, after = found.level, found.before, found.after
    if not after:
        return ""
    band = threshold or 0.0
    if level is None:
        low, high = bottom_y, top_y = _padded(v for x, y, _ in [*before, *after] for v in (x, y))
    else:
        low, high = _padded(x for x, *_ in after)
        bottom_y, top_y = _padded([level - band, level + band, *(y for _, y, _ in after)])
    left, right, top, bottom = 46.0, 472.0, 10.0, 278.0

    def px(value: float) -> float:
        return left + (right - left) * (value - low) / (high - low)

    def py(value: float) -> float:
        return bottom - (bottom - top) * (value - bottom_y) / (top_y - bottom_y)

    def points(found: Sequence[tuple[float, float, Mapping[str, Any]]]) -> list[dict[str, Any]]:
        return [
            {
                **{"x": px(x), "y": py(y), "failed": not r.get("success", True)},
                "case": (numbers or {}).get(id(r)),
                "title": f"{r['name']}: {r['y_initial']} to {y}" if "name" in r else None,
            }
            for x, y, r in found
        ]

    ideal = (low, high) if level is None else (level, level)
    corners = [(low, ideal[0] - band), (high, ideal[1] - band), (high, ideal[1] + band),
               (low, ideal[0] + band)]  # fmt: skip
    return macros(_FOLDER, "figures").overview(
        left, right, top, bottom,
        x_ticks=[(px(tick), f"{tick:g}") for tick in ticks(low, high)],
        y_ticks=[(py(tick), f"{tick:g}") for tick in ticks(bottom_y, top_y)],
        outline=_points((px(x), py(y)) for x, y in corners),
        diagonal=(px(low), py(ideal[0]), px(high), py(ideal[1])),
        before=points(before), after=points(after),
        unit=unit, one_target=level is not None,
    )  # fmt: skip


def _padded(values: Iterable[float]) -> tuple[float, float]:
    """The smallest and the largest value, with room beyond them."""
    found = list(values)
    pad = 0.04 * max(max(found) - min(found), 1e-3)
    return min(found) - pad, max(found) + pad


def _points(points: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def ticks(low: float, high: float) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) between low and high, 2 to 8 of them."""
    step = 10.0 ** math.floor(math.log10(high - low))
    step = next(s for s in (step / 5, step / 2, step, 2 * step) if (high - low) / s <= 7)
    first, last = math.ceil(low / step), math.floor(high / step)
    return [round(i * step, 12) for i in range(first, last + 1)]
