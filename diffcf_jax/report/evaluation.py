"""The table of metrics of the report: from summary.json, and from metrics.json where it exists."""

import contextlib
import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffcf_jax.errors import UserError
from diffcf_jax.files import read_text
from diffcf_jax.jsonfile import read_json
from diffcf_jax.report.numbers import mean_of
from diffcf_jax.results.log import Key, result_key
from diffcf_jax.results.summary import Interval, is_interval

_OF_RUN = {  # name in summary.json -> what it is, and which way is better
    "success_rate": ("|prediction for the saved image − target| ≤ {threshold}", "higher"),
    "final_error": ("|prediction after − target|", "lower"),
    "initial_error": ("|prediction before − target|", ""),
    "reconstruction_gap": ("|prediction for the reconstruction − prediction before|", "lower"),
    "iterations": ("optimisation steps per image", "lower"),
    "pixel_change": ("mean |x′ − x| over all pixels, full range 1", "lower"),
    "seconds": ("computing time per image", ""),
}
_ARROWS = {"higher": "↑", "lower": "↓"}


def read_metrics(folder: Path, faults: list[str]) -> dict[str, Any] | None:
    """metrics.json; None, and a fault if it is broken, where there is none."""
    path = folder / "metrics.json"
    if not path.exists():
        return None
    try:
        metrics = read_json(path, "evaluate the results again")
    except UserError as error:
        faults.append(str(error))
        return None
    found = {
        key: {name: x for name, x in _section(metrics, key).items() if is_interval(x)}
        for key in ("metrics", "control")
    }
    texts = {
        name: {key: str(text) for key, text in about.items()}
        for name, about in _section(metrics, "definitions").items()
        if isinstance(about, Mapping)
    }
    published = {
        name: value
        for name, value in _section(metrics, "published").items()
        if type(value) in (int, float)
    }
    missing = {name: str(needs) for name, needs in _section(metrics, "not_computed").items()}
    return {**found, "definitions": texts, "published": published, "not_computed": missing}


def read_values(folder: Path, faults: list[str]) -> dict[Key, dict[str, float | None]]:
    """The metrics of each result, from metrics_of_results.csv, by `result_key`; {} without it."""
    path = folder / "metrics_of_results.csv"
    if not path.exists():
        return {}
    found = {}
    try:
        for line in csv.DictReader(io.StringIO(read_text(path))):
            name, target, answer = (line.pop(key) for key in ("name", "target", "answer"))
            with contextlib.suppress(ValueError):  # a range or an extreme
                target = float(target)
            values = {key: float(text) if text else None for key, text in line.items()}
            found[result_key(name, target, int(answer))] = values
    except (UserError, KeyError, TypeError, ValueError, AttributeError, csv.Error):
        faults.append(f"{path} is broken; evaluate the results again")
    return found


def table(
    summary: Mapping[str, Interval], metrics: Mapping[str, Any] | None, band: str, digits: int
) -> list[dict[str, Any]]:
    """The rows of the table: those of the run first, in the order of their files.

    Args:
        summary: metrics of summary.json.
        metrics: of `read_metrics`.
        band: the threshold of success with its unit.
        digits: of predictions.
    """
    rows = []
    measured = metrics["metrics"] if metrics else {}
    for name, interval in {**summary, **measured}.items():
        about, better = _OF_RUN.get(name, ("", ""))
        definition = metrics["definitions"].get(name, {}) if metrics else {}
        mean, between = mean_of(name, interval, digits)
        control = metrics["control"].get(name) if metrics else None
        published = metrics["published"].get(name) if metrics else None
        rows.append({
            "name": name,
            "about": about.format(threshold=band) or definition.get("about", ""),
            "reference": definition.get("reference", ""),
            "arrow": _ARROWS.get(definition.get("better", better), ""),
            "mean": mean, "between": between, "n": interval["n"],
            "control": mean_of(name, control, digits)[0] if control else "",
            "published": "" if published is None else f"{published:g}",
        })  # fmt: skip
    return rows


def _section(metrics: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    section = metrics.get(key)
    return section if isinstance(section, Mapping) else {}
