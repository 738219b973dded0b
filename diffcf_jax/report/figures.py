"""Figures of the report: heatmaps as pixels, curves and the overview as inline SVG.

The SVG elements carry classes and no colours: the style sheet of the report colours them for a
light and a dark page.
"""

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


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


def curve_svg(curve: Sequence[float | None], target: float, threshold: float | None = None) -> str:
    """Optimisation curve: the prediction at each iteration on its way to the target.

    Args:
        curve: predictions; None where one was not finite.
        target: drawn as a dashed line.
        threshold: half height of the band around the target that counts as success.

    Returns:
        An <svg> element; empty text when no prediction is known.
    """
    width, height, margin = 150.0, 50.0, 4.0
    known = [(i, y) for i, y in enumerate(curve) if y is not None]
    if not known:
        return ""
    band = threshold or 0.0
    values = [y for _, y in known] + [target - band, target + band]
    low, high = min(values), max(values)
    span = max(high - low, 1e-3)
    last = max(len(curve) - 1, 1)

    def px(i: float) -> float:
        return margin + (width - 2 * margin) * i / last

    def py(y: float) -> float:
        return height - margin - (height - 2 * margin) * (y - low) / span

    points = " ".join(f"{px(i):.1f},{py(y):.1f}" for i, y in known)
    end = known[-1]
    return (
        f'<svg class="curve" viewBox="0 0 {width:g} {height:g}" preserveAspectRatio="none" '
        f'role="img" aria-label="Prediction from {known[0][1]:.3f} to {end[1]:.3f} '
        f'in {len(curve)} iterations, target {target:.3f}">'
        f'<rect class="band" x="0" width="{width:g}" y="{py(target + band):.1f}" '
        f'height="{max(py(target - band) - py(target + band), 0):.1f}"/>'
        f'<line class="target" x1="0" x2="{width:g}" y1="{py(target):.1f}" '
        f'y2="{py(target):.1f}"/>'
        f'<polyline points="{points}"/>'
        # A line of no length with round ends: a dot that stays round when the figure is stretched.
        f'<line class="end" x1="{px(end[0]):.1f}" x2="{px(end[0]):.1f}" '
        f'y1="{py(end[1]):.1f}" y2="{py(end[1]):.1f}"/></svg>'
    )


def overview_svg(
    results: Sequence[Mapping[str, Any]], threshold: float | None = None, unit: str | None = None
) -> str:
    """Prediction against target, before (hollow) and after (filled), one pair for each result.

    Args:
        results: lines of results.jsonl without errors.
        threshold: half height of the band around the diagonal that counts as success.
        unit: of the values, named beside the axes.

    Returns:
        An <svg> element; empty text when there is nothing to draw.
    """
    before = [(r["target"], r["y_initial"]) for r in results if r["y_initial"] is not None]
    after = [(r["target"], r["y_final"]) for r in results if r["y_final"] is not None]
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

    parts = []
    for tick in ticks(low, high):
        x, y, label = px(tick), py(tick), f"{tick:g}"
        parts.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="y" x="{left - 8}" y="{y + 3.5:.1f}">{label}</text>')
        parts.append(f'<text class="x" x="{x:.1f}" y="{bottom + 17}">{label}</text>')
    # The diagonal, and the band around it cut off at the frame by a clip path.
    band = threshold or 0.0
    corners = [(low, low - band), (high, high - band), (high, high + band), (low, low + band)]
    outline = " ".join(f"{px(x):.1f},{py(y):.1f}" for x, y in corners)
    parts.append(
        f'<clipPath id="frame"><rect x="{left}" y="{top}" width="{right - left}" '
        f'height="{bottom - top}"/></clipPath>'
        f'<polygon class="band" points="{outline}" clip-path="url(#frame)"/>'
        f'<line class="target" x1="{px(low):.1f}" y1="{py(low):.1f}" x2="{px(high):.1f}" '
        f'y2="{py(high):.1f}"/>'
    )
    for name, points, radius in (("before", before, 2.5), ("after", after, 3)):
        parts.extend(
            f'<circle class="{name}" cx="{px(x):.1f}" cy="{py(y):.1f}" r="{radius}"/>'
            for x, y in points
        )
    middle_x, middle_y = (left + right) / 2, (top + bottom) / 2
    of_unit = f" ({html.escape(unit)})" if unit else ""
    parts.append(
        f'<text class="x" x="{middle_x}" y="{bottom + 37}">target{of_unit}</text>'
        f'<text class="x" transform="translate(12 {middle_y}) rotate(-90)">'
        f"prediction{of_unit}</text>"
    )
    return (
        '<svg class="overview" viewBox="0 0 480 320" role="img" aria-label="Prediction against '
        f'target, before and after, {len(after)} results">{"".join(parts)}</svg>'
    )


def ticks(low: float, high: float) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) between low and high, 2 to 8 of them."""
    step = 10.0 ** math.floor(math.log10(high - low))
    step = next(s for s in (step / 5, step / 2, step, 2 * step) if (high - low) / s <= 7)
    first, last = math.ceil(low / step), math.floor(high / step)
    return [round(i * step, 12) for i in range(first, last + 1)]
