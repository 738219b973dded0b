"""report.html: the results of a run on one self-contained page.

The page needs no network and no other file: images are data URIs, style and script are inline.
"""

import base64
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from diffcf_jax.files import read_image, write_file
from diffcf_jax.jsonfile import strict_json
from diffcf_jax.report.figures import curve_svg, overview_svg
from diffcf_jax.report.template import render
from diffcf_jax.results.answers import pairwise_distances, together
from diffcf_jax.results.log import RESULTS, image_path, order_of, read_results
from diffcf_jax.results.summary import Interval, miss, read_summary
from diffcf_jax.target import ends

_FOLDER = Path(__file__).parent

# Images up to this size are embedded as they are and enlarged with sharp pixels; larger ones
# are embedded as thumbnails of at most _THUMBNAIL pixels, to keep the page small.
_SHARP_UP_TO = 96
_THUMBNAIL = 192

_METHODS = {"ac-re": "AC-RE", "diffae-re": "Diff-AE-RE", "hybrid": "Hybrid"}

_METRICS = {  # name in summary.json -> (label, what it is)
    "success_rate": ("Success rate", "prediction for the saved image within {threshold} target"),
    "final_error": ("Distance to the target", "|prediction after − target|"),
    "initial_error": ("Distance before", "|prediction before − target|"),
    "reconstruction_gap": (
        "Reconstruction gap",
        "|prediction for the reconstruction − prediction before|",
    ),
    "iterations": ("Iterations", "optimisation steps per image"),
    "pixel_change": ("Pixel change", "mean |x′ − x| over all pixels, full range 1"),
    "seconds": ("Seconds", "computing time per image"),
}

# Title, sort explanation and class of each column of the gallery.
_COLUMNS = [
    ("Image", "name", "name"),
    ("Input", "prediction for the input", "picture"),
    ("Reconstruction", "prediction for the reconstruction", "picture"),
    ("Counterfactual", "prediction for the counterfactual", "picture"),
    ("Heatmap", "mean pixel change", "picture"),
    ("Target", "target", "number"),
    ("Before", "prediction before", "number"),
    ("After", "prediction after", "number"),
    ("Distance", "distance of the prediction after to the target", "number"),
    ("Success", "success", "success"),
    ("Iterations", "iterations", "number"),
    ("Curve", "seconds", "plot"),
]
_IN_UNIT = ("Target", "Before", "After", "Distance")


def write_report(workdir: str | Path, limit: int = 1000) -> Path:
    """Writes OUT/report.html from results.jsonl, summary.json and the saved images.

    The title is made of the method's name and the folder's; `config.method.threshold` is the
    band of success in the figures, and `config.regressor.unit` the unit of all predictions.

    Args:
        workdir: OUT, the folder of an explain.py run.
        limit: the gallery shows at most this many results, the first by id; the page says how
            many are left out.

    Raises:
        UserError: a file is missing or broken, or the folder cannot be written.
    """
    folder = Path(workdir)
    rows = sorted(read_results(folder), key=order_of)
    summary = read_summary(folder)
    config = summary["config"]
    results = [row for row in rows if "error" not in row]
    groups = together(results[:limit])
    summary |= {"n": len(results), "errors": len(rows) - len(results)}
    name, threshold = str(config["method"].get("name")), config["method"]["threshold"]
    unit = (config.get("regressor") or {}).get("unit")
    digits = _digits(
        value
        for row in results
        for value in (row["y_initial"], row["y_final"], *(ends(row["target"]) or ()))
    )
    readings = list(dict.fromkeys(name for row in results for name in row.get("readings", {})))

    def with_unit(number: str, unit: str | None = unit) -> str:
        return f"{number} {unit}" if unit else number

    def number(value: float | str | None, digits: int = digits) -> str:
        if isinstance(value, str):  # a target
            return value
        return "–" if value is None else f"{value:.{digits}f}"

    band = with_unit(f"{threshold:g}")
    page = render(
        _FOLDER, "report", (_FOLDER / "report.js").read_text("utf-8"),
        title=f"{_METHODS.get(name, name)} · {folder.resolve().name}",
        summary=summary,
        success=_metric("success_rate", summary["metrics"]["success_rate"], "mean", digits, False),
        duration=_duration(summary["wall_seconds"]),
        metrics=[_metric_row(*item, band, digits) for item in summary["metrics"].items()],
        overview=overview_svg(results, threshold, unit),
        threshold=band,
        columns=[
            (with_unit(title, f"({unit})" if unit and title in _IN_UNIT else None), *rest)
            for title, *rest in _COLUMNS
        ]
        + [(name, f"what {name} reads after", "number") for name in readings],
        readings=readings,
        shown=[
            {
                **row,
                "distance": miss(row["y_final"], row["target"]),
                "plot": curve_svg(row["curve"], row["target"], threshold),
            }
            for row in results[:limit]
        ],
        groups=[(group, _distances(folder, group)) for group in groups],
        embed=lambda row, key: _embed(image_path(folder, row, key)),
        number=number,
        value=lambda value: "–" if value is None else with_unit(number(value)),
        errors=[row for row in rows if "error" in row],
        config=strict_json(config, indent=2),
        log=RESULTS,
    )  # fmt: skip
    path = folder / "report.html"
    write_file(path, page.encode())
    return path


def _distances(folder: Path, group: Sequence[Mapping[str, Any]]) -> list[tuple[int, int, float]]:
    """The numbers of each two answers, and the distance between their saved images."""
    images = [read_image(image_path(folder, row, "cf")) for row in group]
    return [
        (group[i]["answer"], group[j]["answer"], distance)
        for (i, j), distance in pairwise_distances(images).items()
    ]


def _metric_row(
    name: str, interval: Interval, band: str, digits: int
) -> tuple[str, str, str, str, Any]:
    """Label, explanation, mean, interval and number of values of a metric."""
    label, what = _METRICS.get(name, (name, ""))
    low, high = (_metric(name, interval, key, digits, key == "high") for key in ("low", "high"))
    between = "" if low is None else f"{low} to {high}"
    mean = _metric(name, interval, "mean", digits) or "–"
    return label, what.format(threshold=f"±{band} of the"), mean, between, interval["n"]


def _metric(
    name: str, interval: Interval, key: str, digits: int, with_unit: bool = True
) -> str | None:
    value = interval[key]
    if value is None:
        return None
    if name == "success_rate":
        return f"{100 * value:.1f}%"
    if "unit" in interval:
        return f"{value:.{digits + 1}f}" + (f" {interval['unit']}" if with_unit else "")
    return f"{value:.1f}" if name in ("iterations", "seconds") else f"{value:.4f}"


def _embed(path: Path) -> dict[str, Any]:
    """An image as a data URI: exact where it is small, otherwise a thumbnail."""
    pixels = read_image(path)
    height, width = pixels.shape[:2]
    sharp = max(height, width) <= _SHARP_UP_TO
    if sharp:
        kind, data = "png", path.read_bytes()
    else:
        image, buffer = Image.fromarray(pixels), io.BytesIO()
        image.thumbnail((_THUMBNAIL, _THUMBNAIL), Image.Resampling.LANCZOS)
        image.save(buffer, "WEBP", quality=85)
        kind, data = "webp", buffer.getvalue()
    source = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    return {"sharp": sharp, "width": width, "height": height, "source": source}


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"


def _digits(values: Iterable[float | None]) -> int:
    """Digits after the point that tell a thousandth of the largest value."""
    largest = max((abs(value) for value in values if value is not None), default=1.0)
    return min(max(3 - round(math.log10(largest or 1.0)), 0), 9)
