"""What a diagnosis found, as text, JSON, pictures and one HTML page that opens offline."""

import base64
import dataclasses
import html
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffcf_jax.files import encode_png, write_file
from diffcf_jax.jsonfile import strict_json
from diffcf_jax.report.figures import ticks

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
        level: a name and the height of a dashed line.
        mark: the config's x.
        diagonal: draw y = x.
    """

    title: str
    series: Mapping[str, Points]
    x_label: str
    kind: str = "lines"
    log: bool = False
    level: tuple[str, float] | None = None
    mark: float | None = None
    diagonal: bool = False


@dataclasses.dataclass(frozen=True)
class Finding:
    """One part of a diagnosis.

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


def write_page(folder: Path, title: str, findings: Sequence[Finding]) -> Path:
    """Writes diagnosis.html, diagnosis.json and a PNG for each finding with pictures.

    Returns:
        The path of diagnosis.html.
    """
    parts = []
    for finding in findings:
        parts.append(f"<h2>{html.escape(finding.title)}</h2><p>{html.escape(finding.text)}</p>")
        parts.append(f'<div class="plots">{"".join(map(plot_svg, finding.plots))}</div>')
        if finding.pictures:
            png = encode_png(grid(finding.pictures))
            write_file(folder / f"{finding.name}.png", png)
            parts.append(_pictures_html(finding.pictures, png))
        parts.append(_table_html(finding.table))
    page = _PAGE.replace("{title}", html.escape(title)).replace("{body}", "".join(parts))
    write_file(folder / "diagnosis.html", page.encode())
    numbers = {
        finding.name: {"text": finding.text, **finding.table.values, "rows": finding.table.rows}
        for finding in findings
    }
    write_file(folder / "diagnosis.json", (strict_json(numbers, indent=2) + "\n").encode())
    return folder / "diagnosis.html"


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

    parts = []
    for y in ticks(y_low, y_high):
        parts.append(
            f'<line class="grid" x1="{left}" x2="{right}" y1="{py(y):.1f}" y2="{py(y):.1f}"/>'
            f'<text class="y" x="{left - 8}" y="{py(y) + 3.5:.1f}">{y:g}</text>'
        )
    for x in _log_ticks(xs) if plot.log else ticks(x_low, x_high):
        parts.append(f'<text class="x" x="{px(x):.1f}" y="{bottom + 17}">{x:g}</text>')
    if plot.mark is not None:
        x = px(plot.mark)
        parts.append(
            f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}"/>'
            f'<text class="mark" x="{x + 5:.1f}" y="{top + 9}">config</text>'
        )
    if plot.level:
        name, y = plot.level
        parts.append(
            f'<line class="level" x1="{left}" x2="{right}" y1="{py(y):.1f}" y2="{py(y):.1f}"/>'
            f'<text class="level" x="{right}" y="{py(y) - 5:.1f}">{html.escape(name)}</text>'
        )
    if plot.diagonal:
        ends = max(min(xs), y_low), min(max(xs), y_high)
        parts.append(
            f'<line class="level" x1="{px(ends[0]):.1f}" y1="{py(ends[0]):.1f}" '
            f'x2="{px(ends[1]):.1f}" y2="{py(ends[1]):.1f}"/>'
        )
    for i, series in enumerate(plot.series.values()):
        if plot.kind == "lines":
            text = " ".join(f"{px(x):.1f},{py(y):.1f}" for x, y in series)
            parts.append(f'<polyline class="s{i}" points="{text}"/>')
        if plot.kind == "points" or len(series) <= 12:
            parts.extend(
                f'<circle class="s{i}" cx="{px(x):.1f}" cy="{py(y):.1f}" r="2.6"/>'
                for x, y in series
            )
    middle = (left + right) / 2
    parts.append(
        f'<text class="x" x="{middle}" y="{bottom + 38}">{html.escape(plot.x_label)}</text>'
    )
    names = "".join(
        f'<span><i class="s{i}"></i>{html.escape(name)}</span>'
        for i, name in enumerate(plot.series)
    )
    return (
        f"<figure><figcaption><b>{html.escape(plot.title)}</b>{names}</figcaption>"
        f'<svg viewBox="0 0 480 292" role="img" aria-label="{html.escape(plot.title)} against '
        f'{html.escape(plot.x_label)}">{"".join(parts)}</svg></figure>'
    )


def _log_ticks(xs: Sequence[float]) -> list[float]:
    """The points themselves if they are few, else 1, 2, 5, 10, ..."""
    values = sorted(set(xs))
    if len(values) <= 8:
        return values
    decades = range(math.floor(math.log10(values[0])), math.ceil(math.log10(values[-1])) + 1)
    marks = [m * 10.0**d for d in decades for m in (1, 2, 5)]
    return [m for m in marks if values[0] <= m <= values[-1]]


def _pictures_html(pictures: Mapping[str, np.ndarray], png: bytes) -> str:
    names = "".join(f"<span>{html.escape(name)}</span>" for name in pictures)
    source = base64.b64encode(png).decode()
    height = next(iter(pictures.values())).shape[1]
    sharp = ' class="sharp"' if height <= 96 else ""
    return (
        f'<div class="pictures"><div class="names">{names}</div>'
        f'<img{sharp} alt="rows: {html.escape(", ".join(pictures))}" '
        f'src="data:image/png;base64,{source}"></div>'
    )


def _table_html(table: Table) -> str:
    parts = []
    if table.values:
        rows = "".join(
            f"<tr><th>{html.escape(name)}</th><td>{_number(value)}</td></tr>"
            for name, value in table.values.items()
        )
        parts.append(f"<table>{rows}</table>")
    if table.rows:
        head = "".join(f"<th>{html.escape(name)}</th>" for name in table.rows[0])
        rows = "".join(
            "<tr>" + "".join(f"<td>{html.escape(_number(v))}</td>" for v in row.values()) + "</tr>"
            for row in table.rows
        )
        parts.append(
            f"<details><summary>All {len(table.rows)} rows</summary>"
            f"<table><tr>{head}</tr>{rows}</table></details>"
        )
    return "".join(parts)


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


_PAGE = (Path(__file__).parent / "page.html").read_text()
