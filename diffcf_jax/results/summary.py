"""The figures of a whole run: means with bootstrap intervals, as summary.json and summary.csv."""

import collections
import csv
import io
import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from diffcf_jax.errors import UserError
from diffcf_jax.files import write_file
from diffcf_jax.jsonfile import read_json, strict_json
from diffcf_jax.results.statistics import Interval, bootstrap_mean
from diffcf_jax.shipped import command
from diffcf_jax.target import ends, nearest

_NUMBER = (int, float)


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
        success_rate; initial_error |y_initial - target|; final_error |y_final - target|, both to
        the nearer end of a range and 0 inside, all three without the targets min and max;
        reconstruction_gap |y_reconstruction - y_initial|; iterations; pixel_change, the mean
        |x - x'| in [0, 1]; seconds for one image. The second to fourth are in the label's unit.
    """
    results = [row for row in rows if "error" not in row]
    failures = [row for row in results if ends(row["target"]) and not row["success"]]
    reasons = collections.Counter(row["reason"] or "no reason given" for row in failures)
    metrics = {
        "success_rate": [row["success"] if ends(row["target"]) else None for row in results],
        "initial_error": [miss(row["y_initial"], row["target"]) for row in results],
        "final_error": [miss(row["y_final"], row["target"]) for row in results],
        "reconstruction_gap": [
            distance(row["y_reconstruction"], row["y_initial"]) for row in results
        ],
        **{key: [row[key] for row in results] for key in ("iterations", "pixel_change", "seconds")},
    }
    images = [row["name"] for row in results]
    intervals = {name: bootstrap_mean(values, images) for name, values in metrics.items()}
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


def read_summary(workdir: str | Path) -> dict[str, Any]:
    """Reads summary.json.

    Raises:
        UserError: it is missing, or holds something else than `summarise` returns.
    """
    path = Path(workdir) / "summary.json"
    remedy = f"run {command('explain')} again with the same --workdir, which writes it at the end"
    summary = read_json(path, remedy)
    if wrong := _wrong_key(summary):
        raise UserError(f'{path} is broken ("{wrong}" is missing or wrong); {remedy}')
    return summary


def is_interval(value: Any) -> bool:
    """Whether a value of somebody's file is what `bootstrap_mean` returns, or a number alone."""
    if not isinstance(value, dict) or not {"mean", "low", "high", "n"} <= value.keys():
        return False
    mean, *between = (value[key] for key in ("mean", "low", "high"))
    known = mean is None or _is(mean, _NUMBER)
    alone = between == [None, None]
    both = mean is not None and all(_is(x, _NUMBER) for x in between)
    return (
        known and (alone or both) and _is(value["n"], _NUMBER) and _is(value.get("unit", ""), str)
    )


def _wrong_key(summary: Mapping[str, Any]) -> str | None:
    """The first key of a summary that is not what `summarise` writes there."""
    expected = {"n": _NUMBER, "errors": _NUMBER, "wall_seconds": _NUMBER, "metrics": dict}
    expected |= {"reasons": dict, "versions": dict, "config": dict}
    for key, kind in expected.items():
        if not _is(summary.get(key), kind):
            return key
    for name, interval in summary["metrics"].items():
        if not is_interval(interval):
            return f"metrics.{name}"
    if "success_rate" not in summary["metrics"]:
        return "metrics.success_rate"
    if not all(_is(count, _NUMBER) for count in summary["reasons"].values()):
        return "reasons"
    method = summary["config"].get("method")
    if not isinstance(method, dict) or not _is(method.get("threshold"), _NUMBER):
        return "config.method.threshold"
    regressor = summary["config"].get("regressor") or {}
    if not isinstance(regressor, dict) or not _is(regressor.get("unit") or "", str):
        return "config.regressor"
    return None


def _is(value: Any, kind: Any) -> bool:
    if kind is _NUMBER:  # of a size that can be shown
        return isinstance(value, kind) and not isinstance(value, bool) and abs(value) < 1e300
    return isinstance(value, kind)


def read_engine_figures(workdir: str | Path) -> dict[str, Any] | None:
    """What an earlier run into the folder has written down; None if there was none."""
    try:
        engine = read_json(Path(workdir) / "summary.json").get("engine")
    except UserError:
        return None
    return engine if isinstance(engine, dict) else None


def distance(a: float | None, b: float | None) -> float | None:
    """|a - b|, or None where one of them is unknown."""
    return None if a is None or b is None else abs(a - b)


def miss(y: float | None, target: float | str) -> float | None:
    """|y - target|, to the nearer end of a range; None where y is unknown or nothing is the end."""
    return None if y is None else distance(y, nearest(y, target))


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
