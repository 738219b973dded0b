"""The figures of a whole run: means with bootstrap intervals, as summary.json and summary.csv."""

import collections
import csv
import io
import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from diffcf_jax.files import write_file
from diffcf_jax.jsonfile import strict_json

# "mean", "low", "high", "n", and "unit" where the values have one
Interval = dict[str, float | int | str | None]


def bootstrap_mean(
    values: Iterable[float | bool | None], resamples: int = 2000, seed: int = 0
) -> Interval:
    """Mean with its 95% interval: the 2.5 and 97.5 percentiles of resampled means.

    The n values are drawn n times with replacement, `resamples` times, always with the same
    seed. None, NaN and infinite values are left out, and `n` says how many values were used.

    Returns:
        {"mean", "low", "high", "n"}; the first three are None when no value is left.

    Reference: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.
    """
    x = np.array([np.nan if value is None else float(value) for value in values])
    x = x[np.isfinite(x)]
    if not x.size:
        return {"mean": None, "low": None, "high": None, "n": 0}
    random = np.random.default_rng(seed)
    means = [x[random.integers(x.size, size=x.size)].mean() for _ in range(resamples)]
    low, high = np.percentile(means, [2.5, 97.5])
    return {"mean": float(x.mean()), "low": float(low), "high": float(high), "n": int(x.size)}


def summarise(
    rows: Sequence[Mapping[str, Any]],
    config: Mapping[str, Any],
    wall_seconds: float,
    versions: Mapping[str, Any],
) -> dict[str, Any]:
    """Sums up a run.

    Args:
        rows: lines of results.jsonl (`read_results`).
        config: the whole config of the run; `regressor.unit` is the unit of the labels.
        wall_seconds: time from start to end of the run.
        versions: `environment()`.

    Returns:
        `n` results and `errors` (inputs without one), `metrics` (name -> `bootstrap_mean`),
        `reasons` (why results did not succeed -> how many), and the arguments. The metrics:
        success_rate; initial_error |y_initial - target|; final_error |y_final - target|;
        reconstruction_gap |y_reconstruction - y_initial|; iterations; pixel_change, the mean
        |x - x'| in [0, 1]; seconds for one image. The second to fourth are in the label's unit.
    """
    results = [row for row in rows if "error" not in row]
    failures = [row for row in results if not row["success"]]
    reasons = collections.Counter(row["reason"] or "no reason given" for row in failures)
    metrics = {
        "success_rate": [row["success"] for row in results],
        "initial_error": [distance(row["y_initial"], row["target"]) for row in results],
        "final_error": [distance(row["y_final"], row["target"]) for row in results],
        "reconstruction_gap": [
            distance(row["y_reconstruction"], row["y_initial"]) for row in results
        ],
        **{key: [row[key] for row in results] for key in ("iterations", "pixel_change", "seconds")},
    }
    intervals = {name: bootstrap_mean(values) for name, values in metrics.items()}
    in_unit = ("initial_error", "final_error", "reconstruction_gap")
    return {
        "n": len(results),
        "errors": len(rows) - len(results),
        "metrics": with_unit(intervals, in_unit, config.get("regressor", {}).get("unit")),
        "reasons": dict(reasons.most_common()),
        "wall_seconds": wall_seconds,
        "versions": dict(versions),
        "config": dict(config),
    }


def write_summary(workdir: str | Path, summary: Mapping[str, Any]) -> None:
    """Writes summary.json (everything) and summary.csv (metric,mean,low,high,n,unit).

    Raises:
        UserError: the folder cannot be written.
    """
    folder = Path(workdir)
    write_file(folder / "summary.json", (strict_json(summary, indent=2) + "\n").encode())
    write_file(folder / "summary.csv", metrics_csv(summary["metrics"]).encode())


def with_unit(
    metrics: Mapping[str, Interval], names: Sequence[str], unit: str | None
) -> dict[str, Interval]:
    """The metrics, with the unit in those that have one; None leaves them as they are."""
    return {
        name: {**interval, "unit": unit} if unit and name in names else dict(interval)
        for name, interval in metrics.items()
    }


def metrics_csv(metrics: Mapping[str, Interval]) -> str:
    """The text of a CSV file, metric,mean,low,high,n,unit; what is not known is left empty."""
    buffer = io.StringIO()
    fields = ["metric", "mean", "low", "high", "n", "unit"]
    writer = csv.DictWriter(buffer, fields, lineterminator="\n")
    writer.writeheader()
    writer.writerows({"metric": name, **interval} for name, interval in metrics.items())
    return buffer.getvalue()


def engine_figures(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """What the engine did and how fast; None if there was nothing to do.

    Args:
        parts: `engine.Statistics` of each process, as dicts.

    Returns:
        `processes`; `slots`, images in work at a time; `images` that this run has explained;
        `useful_fraction`, the slot-iterations that moved an image on among all of them;
        `images_per_second` and `iterations_per_second` (of single images), without compilation;
        `compile_seconds`; `flops_per_iteration` of one image; and `flop_utilisation`, the share
        of the devices' peak in bfloat16 (None where the peak is not known). What a gradient
        recomputes to save memory counts as an operation.
    """
    seconds = max(part["seconds"] for part in parts)
    if not seconds or not any(part["images"] for part in parts):
        return None
    images, iterations, slots, all_iterations = (
        sum(part[key] for part in parts)
        for key in ("images", "iterations", "slots", "slot_iterations")
    )
    flops = max(part["flops"] for part in parts)
    peak = sum(part["peak_flops"] or 0 for part in parts)
    return {
        "processes": len(parts),
        "slots": slots,
        "images": images,
        "useful_fraction": iterations / all_iterations if all_iterations else None,
        "images_per_second": images / seconds,
        "iterations_per_second": iterations / seconds,
        "compile_seconds": max(part["compile_seconds"] for part in parts),
        "flops_per_iteration": flops,
        "flop_utilisation": iterations * flops / seconds / peak if peak else None,
    }


def read_engine_figures(workdir: str | Path) -> dict[str, Any] | None:
    """What an earlier run into the folder has written down; None if there was none."""
    try:
        return json.loads((Path(workdir) / "summary.json").read_text()).get("engine")
    except (OSError, ValueError):
        return None


def distance(a: float | None, b: float | None) -> float | None:
    """|a - b|, or None where one of them is unknown."""
    return None if a is None or b is None else abs(a - b)


def environment() -> dict[str, str]:
    """What the run ran on: the versions that can change a result, and the device."""
    import jax  # here, because importing it to read a report would take seconds

    packages = ("diffcf_jax", "jax", "jaxlib", "flax", "numpy")
    devices = jax.devices()
    return {
        **{package: _version(package) for package in packages},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": (f"{len(devices)} x " if len(devices) > 1 else "") + devices[0].device_kind,
    }


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:  # run from a clone without an install
        return "not installed"
