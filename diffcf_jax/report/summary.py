"""The figures of a whole run: means with bootstrap intervals, as summary.json and summary.csv."""

import collections
import csv
import io
import platform
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from diffcf_jax.report.files import strict_json, write_file

Interval = dict[str, float | int | None]


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
        config: the whole config of the run.
        wall_seconds: time from start to end of the run.
        versions: `environment()`.

    Returns:
        `n` results and `errors` (inputs without one), `metrics` (name -> `bootstrap_mean`),
        `reasons` (why results did not succeed -> how many), and the arguments. The metrics:
        success_rate; initial_error |y_initial - target|; final_error |y_final - target|;
        reconstruction_gap |y_reconstruction - y_initial|; iterations; pixel_change, the mean
        |x - x'| in [0, 1]; seconds for one image.
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
    return {
        "n": len(results),
        "errors": len(rows) - len(results),
        "metrics": {name: bootstrap_mean(values) for name, values in metrics.items()},
        "reasons": dict(reasons.most_common()),
        "wall_seconds": wall_seconds,
        "versions": dict(versions),
        "config": dict(config),
    }


def write_summary(workdir: str | Path, summary: Mapping[str, Any]) -> None:
    """Writes summary.json (everything) and summary.csv (metric,mean,low,high,n).

    Raises:
        UserError: the folder cannot be written.
    """
    folder = Path(workdir)
    write_file(folder / "summary.json", (strict_json(summary, indent=2) + "\n").encode())
    write_file(folder / "summary.csv", metrics_csv(summary["metrics"]).encode())


def metrics_csv(metrics: Mapping[str, Interval]) -> str:
    """The text of a CSV file, metric,mean,low,high,n; empty fields where no value is known."""
    buffer = io.StringIO()
    fields = ["metric", "mean", "low", "high", "n"]
    writer = csv.DictWriter(buffer, fields, lineterminator="\n")
    writer.writeheader()
    writer.writerows({"metric": name, **interval} for name, interval in metrics.items())
    return buffer.getvalue()


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
