"""report.html: the results of a run on one self-contained page.

The page needs no network and no other file: images are data URIs, style and script are inline.
"""

import base64
import html
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from PIL import Image

from diffcf_jax.errors import UserError
from diffcf_jax.files import read_image, write_file
from diffcf_jax.jsonfile import strict_json
from diffcf_jax.report.figures import curve_svg, overview_svg
from diffcf_jax.results.log import RESULTS, read_results
from diffcf_jax.results.summary import Interval, distance
from diffcf_jax.shipped import command

# Images up to this size are embedded as they are and enlarged with sharp pixels; larger ones
# are embedded as thumbnails of at most _THUMBNAIL pixels, to keep the page small.
_SHARP_UP_TO = 96
_THUMBNAIL = 192

_METHODS = {"ac-re": "AC-RE", "diffae-re": "Diff-AE-RE"}

_METRICS = {  # name in summary.json -> (label, what it is)
    "success_rate": ("Success rate", "prediction for the saved image within {threshold} target"),
    "final_error": ("Distance to the target", "|prediction after − target|"),
    "initial_error": ("Distance before", "|prediction before − target|"),
    "reconstruction_gap": (
        "Reconstruction gap",
        "|prediction for the reconstruction − prediction before|",
    ),
    "iterations": ("Iterations", "optimisation steps of an image"),
    "pixel_change": ("Pixel change", "mean |x′ − x| over all pixels, full range 1"),
    "seconds": ("Seconds", "time in the engine, of an image"),
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
        limit: the gallery shows at most so many results, the first by id; the page says how
            many are left out.

    Raises:
        UserError: a file is missing or broken, or the folder cannot be written.
    """
    folder = Path(workdir)
    rows = sorted(read_results(folder), key=lambda row: (row["id"], row["target"] or 0.0))
    summary = read_summary(folder)
    config = summary["config"]
    results = [row for row in rows if "error" not in row]
    errors = [row for row in rows if "error" in row]
    method = config["method"]
    threshold = method["threshold"]
    unit = config.get("regressor", {}).get("unit")
    digits = _digits(row[key] for row in results for key in ("target", "y_initial", "y_final"))
    title = f"{_METHODS.get(method['name'], method['name'])} · {folder.resolve().name}"
    package = resources.files("diffcf_jax.report")
    page = (package / "report.html").read_text("utf-8")
    parts = {
        "title": _text(title),
        "style": (package / "report.css").read_text("utf-8"),
        "script": (package / "report.js").read_text("utf-8"),
        "lead": _lead(summary),
        "summary": _summary_table(summary, _in_unit(f"{threshold:g}", unit), digits),
        "reasons": _reasons(summary["reasons"]),
        "overview": overview_svg(results, threshold, unit),
        "band": f" The band is the success threshold, ±{_text(_in_unit(f'{threshold:g}', unit))}.",
        "count": _count(len(results), limit),
        "head": "".join(_head_cell(_title(title, unit), *rest) for title, *rest in _COLUMNS),
        "rows": "\n".join(
            _gallery_row(folder, row, threshold, unit, digits) for row in results[:limit]
        ),
        "errors": _errors(errors),
        "versions": _pairs(summary["versions"]),
        "config": _text(strict_json(config, indent=2)),
    }
    # One pass over the template, so that nothing inside a part can be taken for a placeholder.
    pieces = page.split("@@")
    pieces[1::2] = [parts[name] for name in pieces[1::2]]
    path = folder / "report.html"
    write_file(path, "".join(pieces).encode())
    return path


def read_summary(workdir: str | Path) -> dict[str, Any]:
    """Reads summary.json.

    Raises:
        UserError: it is missing or broken.
    """
    path = Path(workdir) / "summary.json"
    remedy = (
        f"run {command('explain')} again with the same --workdir, it writes the file at its end"
    )
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; {remedy}") from error
    except ValueError as error:
        raise UserError(f"{path} is broken ({error}); {remedy}") from error


def _lead(summary: Mapping[str, Any]) -> str:
    """The sentence below the title."""
    parts = [f"{summary['n']:,} counterfactual{'s' if summary['n'] != 1 else ''}"]
    success = summary["metrics"]["success_rate"]
    if success["mean"] is not None:
        parts.append(f"{100 * success['mean']:.1f}% reached the target")
    if summary["errors"]:
        inputs = "input" if summary["errors"] == 1 else "inputs"
        parts.append(f'<a href="#errors">{summary["errors"]:,} {inputs} failed</a>')
    device = summary["versions"].get("device")
    on = f" on {_text(str(device))}" if device else ""
    parts.append(_duration(summary["wall_seconds"]) + on)
    return " · ".join(parts)


def _summary_table(summary: Mapping[str, Any], threshold: str, digits: int) -> str:
    within = f"±{threshold} of the"
    lines = []
    for name, interval in summary["metrics"].items():
        label, what = _METRICS.get(name, (name, ""))
        what = what.replace("{threshold}", within)
        mean, low, high = (_metric(name, interval, key, digits) for key in ("mean", "low", "high"))
        between = "" if interval["low"] is None else f"{low} to {high}"
        lines.append(
            f'<tr><th scope="row">{_text(label)}<small>{_text(what)}</small></th>'
            f"<td>{mean}</td><td>{between}</td><td>{interval['n']:,}</td></tr>"
        )
    return "\n".join(lines)


def _metric(name: str, interval: Interval, key: str, digits: int) -> str:
    value = interval[key]
    if value is None:
        return "–"
    if name == "success_rate":
        return f"{100 * value:.1f}%"
    if "unit" in interval:
        number = f"{value:.{digits + 1}f}"
        return number if key == "low" else _text(_in_unit(number, interval["unit"]))
    return f"{value:.1f}" if name in ("iterations", "seconds") else f"{value:.4f}"


def _reasons(reasons: Mapping[str, int]) -> str:
    if not reasons:
        return ""
    items = "".join(f"<li><b>{n:,}</b> {_text(reason)}</li>" for reason, n in reasons.items())
    return f"<h3>Why some did not succeed</h3><ul class=reasons>{items}</ul>"


def _count(total: int, limit: int) -> str:
    if total <= limit:
        return f"All {total:,} results." if total != 1 else "One result."
    return (
        f"The first {limit:,} of {total:,} results; the other {total - limit:,} left out of this "
        f"page to keep it usable are in {RESULTS} and the image folders."
    )


def _title(title: str, unit: str | None) -> str:
    return f"{title} ({_text(unit)})" if unit and title in _IN_UNIT else title


def _head_cell(title: str, sort_by: str, kind: str) -> str:
    return (
        f'<th scope="col" class="{kind}"><button type="button" title="Sort by {sort_by}">'
        f"{title}</button></th>"
    )


def _gallery_row(
    folder: Path, row: Mapping[str, Any], threshold: float, unit: str | None, digits: int
) -> str:
    def value_in_unit(value: float | None) -> str:
        return _text(_in_unit(_value(value, digits), unit if value is not None else None))

    name = _text(row["name"])
    reason = f"<small>{_text(row['reason'])}</small>" if row["reason"] else ""
    y_true = row["y_true"]
    true_value = "" if y_true is None else f"<small>true {value_in_unit(y_true)}</small>"
    missed = distance(row["y_final"], row["target"])
    pictures = [
        ("input", "y_initial", "input"),
        ("reconstruction", "y_reconstruction", "reconstruction"),
        ("cf", "y_final", "counterfactual"),
        ("heatmap", "pixel_change", "heatmap"),
    ]
    cells = [(row["name"], f'<button type="button" class="open">{name}</button>{true_value}')]
    for key, sort_key, what in pictures:
        image = _embed(folder / row[key], f"{what} of {name}")
        if key == "heatmap":
            caption = f"change {_value(row[sort_key], 3)}"
        else:
            caption = f"predicted {value_in_unit(row[sort_key])}"
        cells.append((row[sort_key], f"{image}<small>{caption}</small>"))
    numbers = [row["target"], row["y_initial"], row["y_final"], missed]
    cells += [(value, _value(value, digits)) for value in numbers]
    mark = "<b class=yes>yes</b>" if row["success"] else "<b class=no>no</b>"
    cells.append((int(row["success"]), mark + reason))
    cells.append((row["iterations"], str(row["iterations"])))
    curve = curve_svg(row["curve"], row["target"], threshold)
    seconds = "" if row["seconds"] is None else f"<small>{row['seconds']:.1f} s</small>"
    cells.append((row["seconds"], curve + seconds))
    tags = "".join(  # data-v is what the column is sorted by
        f'<td class="{kind}" data-label="{_title(title, unit)}" '
        f'data-v="{"" if value is None else _text(str(value))}">{content}</td>'
        for (title, _, kind), (value, content) in zip(_COLUMNS, cells, strict=True)
    )
    return f"<tr>{tags}</tr>"


def _embed(path: Path, alternative: str) -> str:
    pixels = read_image(path)
    size, kind, mark = max(pixels.shape[:2]), "png", " class=sharp"
    if size <= _SHARP_UP_TO:
        data = path.read_bytes()
    else:
        image = Image.fromarray(pixels)
        image.thumbnail((_THUMBNAIL, _THUMBNAIL), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        image.save(buffer, "WEBP", quality=85)
        data, kind, mark = buffer.getvalue(), "webp", ""
    height, width = pixels.shape[:2]
    return (
        f'<img{mark} loading="lazy" decoding="async" width="{width}" height="{height}" '
        f'alt="{alternative}" src="data:image/{kind};base64,{base64.b64encode(data).decode()}">'
    )


def _errors(errors: Sequence[Mapping[str, Any]]) -> str:
    if not errors:
        return ""
    items = "".join(f"<li><b>{_text(row['name'])}</b> {_text(row['error'])}</li>" for row in errors)
    return f'<section id="errors"><h2>Failed inputs</h2><ul>{items}</ul></section>'


def _pairs(values: Mapping[str, Any]) -> str:
    return "".join(
        f"<dt>{_text(str(key))}</dt><dd>{_text(str(value))}</dd>" for key, value in values.items()
    )


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


def _in_unit(number: str, unit: str | None) -> str:
    return f"{number} {unit}" if unit else number


def _value(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _text(text: str) -> str:
    return html.escape(text)
