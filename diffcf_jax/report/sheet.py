"""Figures: all counterfactuals of an image, collages of many images, achieved against target."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from diffcf_jax.errors import UserError
from diffcf_jax.report.figures import achieved
from diffcf_jax.results.log import order_of
from diffcf_jax.target import EXTREMES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Row = Mapping[str, Any]  # as in results.jsonl, without an error
# An image of a row, uint8 [H, W, 3], by its key: "input", "reconstruction" or "cf"
Load = Callable[[Row, str], np.ndarray]

_INCH = 1.35  # of one image
_BEFORE, _AFTER, _FAILED, _BAND = "#8a8f98", "#2458a6", "#c0392b", "#dfe9f7"


def sheet(rows: Sequence[Row], load: Load, unit: str | None = None) -> "Figure":
    """Draw all results of one image, as Figure 4 of Ha and Bender (2025).

    The first row shows the reconstruction and the counterfactuals, in the order of their targets,
    with the regressor's readings; the second the input, and below each counterfactual its signed
    change against the input, the mean over channels of x' - x, on one scale with a colour bar.

    Args:
        rows: results of one image, at least one.
        load: gives their images.
        unit: of the readings.

    Raises:
        UserError: matplotlib is not installed; an image is missing or broken.
    """
    rows = sorted(rows, key=order_of)
    images, before = [load(row, "cf") for row in rows], load(rows[0], "input")
    figure = _figure(len(rows) + 1, 2, colour_bar=True)
    axes = figure.subplots(2, len(rows) + 1, squeeze=False)
    first = rows[0]
    _show(axes[0, 0], load(first, "reconstruction"))
    axes[0, 0].set_title(_reading("reconstruction", first["y_reconstruction"], unit))
    _show(axes[1, 0], before)
    axes[1, 0].set_title(_reading("input", first["y_initial"], unit))
    changes = [(image.astype(float) - before).mean(-1) / 255 for image in images]
    largest = max(max(float(np.abs(change).max()) for change in changes), 1 / 255)
    for i, (row, image, change) in enumerate(zip(rows, images, changes, strict=True), 1):
        _show(axes[0, i], image)
        axes[0, i].set_title(_reading(_target(row), row["y_final"], unit))
        drawn = axes[1, i].imshow(change, cmap="bwr", vmin=-largest, vmax=largest)
    for place in axes.flat:
        _plain(place)
    bar = figure.colorbar(drawn, ax=axes[1, :], fraction=0.02, pad=0.01)
    bar.set_label("change of brightness", fontsize=7)
    bar.ax.tick_params(labelsize=7)
    return figure


def collage(rows: Sequence[Row], load: Load, unit: str | None = None) -> "Figure":
    """Draw one row per result: input, reconstruction, counterfactual, signed change.

    Args:
        rows: at least one.
        load: gives their images.
        unit: of the readings.

    Raises:
        UserError: matplotlib is not installed; an image is missing or broken.
    """
    figure = _figure(4, len(rows))
    axes = figure.subplots(len(rows), 4, squeeze=False)
    for places, row in zip(axes, sorted(rows, key=order_of), strict=True):
        x, reconstruction, y = (load(row, key) for key in ("input", "reconstruction", "cf"))
        titles = ("input", "reconstruction", _target(row))
        values = (row["y_initial"], row["y_reconstruction"], row["y_final"])
        for place, image, title, value in zip(
            places, (x, reconstruction, y), titles, values, strict=False
        ):
            _show(place, image)
            place.set_title(_reading(title, value, unit))
        places[3].imshow((y.astype(float) - x).mean(-1) / 255, cmap="bwr", vmin=-1, vmax=1)
        places[3].set_title("change, -1 to 1")
        for place in places:
            _plain(place)
    return figure


def plot_achieved(
    results: Sequence[Row], threshold: float, unit: str | None = None
) -> "Figure | None":
    """Draw `achieved` with the band of success, as the report does.

    Args:
        results: lines of results.jsonl without errors; the first are drawn last, on top.
        threshold: half height of the band.
        unit: of the predictions.

    Returns:
        None when there is nothing to draw.

    Raises:
        UserError: matplotlib is not installed.
    """
    found = achieved(results)
    if not found.after:
        return None
    figure = _figure(4, 2)
    place = figure.subplots()
    line = [min(x for x, *_ in found.after), max(x for x, *_ in found.after)]
    ideal = np.array(line if found.level is None else [found.level] * 2)
    place.fill_between(line, ideal - threshold, ideal + threshold, color=_BAND, linewidth=0)
    place.plot(line, ideal, color=_BEFORE, linewidth=0.8)
    reached = [(x, y) for x, y, row in found.after if row["success"]]
    failed = [(x, y) for x, y, row in found.after if not row["success"]]
    before = [(x, y) for x, y, _ in found.before]
    for points, label, style in (
        (before, "before", {"facecolors": "none", "edgecolors": _BEFORE, "s": 12}),
        (reached, "after", {"color": _AFTER, "s": 12}),
        (failed, "after, missed", {"color": _FAILED, "s": 18}),
    ):
        if points:
            place.scatter(*zip(*points, strict=True), label=label, **style)
    of_unit = f" ({unit})" if unit else ""
    place.set_xlabel(("target" if found.level is None else "prediction before") + of_unit)
    place.set_ylabel(("prediction" if found.level is None else "prediction after") + of_unit)
    place.legend(fontsize=7)
    return figure


def _figure(columns: int, rows: int, colour_bar: bool = False) -> "Figure":
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError(
            "Figures are drawn by matplotlib, which is not installed: pip install "
            "'diffcf_jax[plot]'."
        ) from None
    width = _INCH * columns + (0.6 if colour_bar else 0)
    return Figure(figsize=(width, (_INCH + 0.3) * rows), dpi=200, layout="constrained")


def _show(place: Any, image: np.ndarray) -> None:
    place.imshow(image, interpolation="nearest" if image.shape[0] <= 96 else None)


def _target(row: Row) -> str:
    target = row["target"] if isinstance(row["target"], str) else f"{row['target']:.4g}"
    missed = "" if row["success"] or target in EXTREMES else ", missed"
    return f"target {target}{missed}"


def _plain(place: Any) -> None:
    place.set_axis_off()
    place.title.set_fontsize(7)


def _reading(what: str, y: float | None, unit: str | None) -> str:
    return f"{what}\n" + ("" if y is None else f"reads {y:.3g} {unit or ''}".rstrip())
