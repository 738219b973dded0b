"""What a program found, as text, JSON, pictures and one HTML page that opens offline."""

import base64
import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffcf_jax.files import encode_png, inside, write_file
from diffcf_jax.jsonfile import strict_json
from diffcf_jax.report.figures import ticks
from diffcf_jax.report.template import macros, render

_FOLDER = Path(__file__).parent

Points = Sequence[tuple[float, float]]


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of equal keys.

    Attributes:
        rows: all of them.
        shown: those to print.
        values: numbers that belong to no row.
    """

    rows: list[dict[str, Any]]
    shown: list[dict[str, Any]]
    values: dict[str, float] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(
        cls,
        rows: list[dict[str, Any]],
        shown: list[dict[str, Any]] | None = None,
        values: dict[str, float] | None = None,
    ) -> "Table":
        """A table of which `shown`, or everything, is printed."""
        return cls(rows, rows if shown is None else shown, values or {})


@dataclasses.dataclass(frozen=True)
class Plot:
    """A diagram.

    Attributes:
        title: what the vertical axis shows.
        series: points by name.
        x_label: what the horizontal axis shows.
        kind: "lines" or "points".
        log: a logarithmic horizontal axis, with ticks at the points.
        names: what stands at x = 0, 1, ... where those are no numbers.
        intervals: (x, low, high) by the name of the series, as bars.
        level: a name and the height of a dashed line.
        mark: the config's x.
        diagonal: draw y = x.
    """

    title: str
    series: Mapping[str, Points]
    x_label: str
    kind: str = "lines"
    log: bool = False
    names: Sequence[str] = ()
    intervals: Mapping[str, Sequence[tuple[float, float, float]]] = dataclasses.field(
        default_factory=dict
    )
    level: tuple[str, float] | None = None
    mark: float | None = None
    diagonal: bool = False


@dataclasses.dataclass(frozen=True)
class Finding:
    """One part of a page.

    Attributes:
        name: a key, and the picture's file name.
        title: its heading.
        text: what it means, in sentences.
        table: its numbers.
        plots: its diagrams.
        pictures: rows of images [n, H, W, 3] in [0, 1] by name.
    """

    name: str
    title: str
    text: str
    table: Table
    plots: list[Plot]
    pictures: Mapping[str, np.ndarray]


def write_page(folder: Path, name: str, title: str, findings: Sequence[Finding]) -> Path:
    """Writes NAME.html, NAME.json and a PNG for each finding with pictures.

    Returns:
        The path of NAME.html.
    """
    images = {}
    for finding in findings:
        if finding.pictures:
            png = encode_png(grid(finding.pictures))
            write_file(inside(folder, f"{finding.name}.png"), png)
            images[finding.name] = base64.b64encode(png).decode()
    page = render(
        _FOLDER, "page", title=title, findings=findings, images=images, plot_svg=plot_svg,
        number=_number,
    )  # fmt: skip
    write_file(folder / f"{name}.html", page.encode())
    numbers = {
        finding.name: {"text": finding.text, **finding.table.values, "rows": finding.table.rows}
        for finding in findings
    }
    write_file(folder / f"{name}.json", (strict_json(numbers, indent=2) + "\n").encode())
    return folder / f"{name}.html"


def grid(pictures: Mapping[str, np.ndarray]) -> np.ndarray:
    """Rows of images as one, with a white line between two: uint8 [rows (H + 2), n (W + 2), 3]."""
    frame = ((0, 0), (1, 1), (1, 1), (0, 0))
    framed = [np.pad(x, frame, constant_values=1) for x in pictures.values()]
    rows = [np.concatenate(list(images), axis=1) for images in framed]
    return np.rint(np.clip(np.concatenate(rows), 0, 1) * 255).astype(np.uint8)


def format_finding(finding: Finding) -> str:
    """A finding as text for a terminal."""
    lines = [finding.title, "-" * len(finding.title)]
    if finding.table.shown:
        names = list(finding.table.shown[0])
        cells = [names, *([_number(row[n]) for n in names] for row in finding.table.shown)]
        widths = [max(len(row[i]) for row in cells) for i in range(len(names))]
        lines += ["  ".join(c.rjust(w) for c, w in zip(row, widths, strict=True)) for row in cells]
    lines += [f"{name:<14}{_number(value)}" for name, value in finding.table.values.items()]
    return "\n".join([*lines, finding.text, ""])


def plot_svg(plot: Plot) -> str:
    """A diagram as a <figure> with an <svg>; the style sheet colours it."""
    left, right, top, bottom = 58.0, 470.0, 12.0, 250.0
    points = [point for series in plot.series.values() for point in series]
    xs, ys = ([float(p[i]) for p in points] for i in (0, 1))
    ys += [y for bars in plot.intervals.values() for _, *ends in bars for y in ends]
    if plot.level:
        ys.append(plot.level[1])
    if plot.kind == "lines":
        ys.append(0.0)
    if plot.diagonal:
        xs = ys = [*xs, *ys]
    scale = math.log if plot.log else float
    x_low, x_high = scale(min(xs)), scale(max(xs))
    x_high = max(x_high, x_low + 1e-9)
    y_low, y_high = min(ys), max(ys)
    y_high = max(y_high, y_low + 1e-9)
    pad = 0.04 * (y_high - y_low)
    y_low, y_high = y_low - (pad if y_low < 0 else 0), y_high + pad

    def px(x: float) -> float:
        return left + (right - left) * (scale(x) - x_low) / (x_high - x_low)

    def py(y: float) -> float:
        return bottom - (bottom - top) * (y - y_low) / (y_high - y_low)

    ends = max(min(xs), y_low), min(max(xs), y_high)
    places = _log_ticks(xs) if plot.log else ticks(x_low, x_high)
    x_ticks = list(enumerate(plot.names)) or [(x, f"{x:g}") for x in places]
    series = []
    for name, values in plot.series.items():
        dots = [(px(x), py(y)) for x, y in values]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in dots) if plot.kind == "lines" else ""
        shown = dots if plot.kind == "points" or len(dots) <= 12 else []
        bars = [(px(x), py(low), py(high)) for x, low, high in plot.intervals.get(name, ())]
        series.append({"name": name, "line": line, "dots": shown, "bars": bars})
    return macros(_FOLDER, "plot").plot(
        plot.title, plot.x_label, left, right, top, bottom,
        x_ticks=[(px(x), label) for x, label in x_ticks],
        y_ticks=[(py(y), f"{y:g}") for y in ticks(y_low, y_high)],
        mark=None if plot.mark is None else px(plot.mark),
        level=plot.level and (plot.level[0], py(plot.level[1])),
        diagonal=(px(ends[0]), py(ends[0]), px(ends[1]), py(ends[1])) if plot.diagonal else None,
        series=series,
    )  # fmt: skip


def _log_ticks(xs: Sequence[float]) -> list[float]:
    """The points themselves if they are few, else 1, 2, 5, 10, ..."""
    values = sorted(set(xs))
    if len(values) <= 8:
        return values
    decades = range(math.floor(math.log10(values[0])), math.ceil(math.log10(values[-1])) + 1)
    marks = [m * 10.0**d for d in decades for m in (1, 2, 5)]
    return [m for m in marks if values[0] <= m <= values[-1]]


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
