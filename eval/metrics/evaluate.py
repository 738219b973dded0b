"""Measures a finished run and writes the figures beside it."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffcf_jax.errors import UserError
from diffcf_jax.files import read_image, write_file
from diffcf_jax.jsonfile import strict_json
from diffcf_jax.regressors.readings import Oracles, oracle_sections, spec_of
from diffcf_jax.results.log import image_path, read_results
from diffcf_jax.results.statistics import Interval, bootstrap_mean
from diffcf_jax.results.summary import metrics_csv, read_summary, with_unit
from diffcf_jax.units import label_range

from .attack import attacked
from .axioms import measure_axioms
from .batch import Kept, batches, measurable, read_rgb, remembering
from .measure import Measured, measure
from .metric import METRICS, definition
from .nearest import load_training_images
from .originals import results_of_the_originals
from .plan import make_plan
from .published import paper_scale, published
from .regressor import READING, load_judge
from .sweep import Images, diversity, measure_sweeps

SUITES = ("paper", "full")
RESULTS_CSV = "metrics_of_results.csv"


def evaluate(
    results: str | Path,
    regressor: str | Path | None = None,
    oracle: str | Path | None = None,
    oracles: Oracles | None = None,
    weights: str | Path | None = None,
    suite: str = "paper",
    axioms: int = 0,
    train: str | Path | None = None,
) -> dict[str, Any]:
    """Measures a results folder; writes metrics.json, metrics.csv and metrics_of_results.csv.

    And cf_results.json and results_summary.csv, for the scripts of the paper.

    Args:
        results: the folder.
        regressor: network directory; None: the one in the run's config.
        oracle: network directory; None: the one in the run's config; without one the oracle's
            metrics are left out.
        oracles: more of them, see `oracle_sections`; None: those in the run's config.
        weights: a folder of network directories named as in `Metric.needs`; what it lacks is
            listed in `not_computed`.
        suite: "paper", or "full": also how the regressor reacts to small changes of x', distances
            of sets, and all metrics of a control, see `attack`.
        axioms: the number of images to explain again, see `measure_axioms`; 0: none.
        train: a folder with the images that the generator was trained on, for the distances to the
            nearest of them.

    Returns:
        `metrics` (name -> `bootstrap_mean`; figures of the whole set have no interval), `control`
        (the same of a plain attack on the pixels with as many gradients; "full" only), `n`,
        `originals` (how many different ones), `errors`, `left_out` (a sentence about each result
        and oracle that could not be measured), `unit`, `threshold`, the checkpoints, `definitions`
        (name -> what it is), `published` (name -> the paper's value in our unit, for its data and
        methods),
        `not_computed` (name -> what it needs), and `largest_change_of_prediction`:
        max |regressor(x') - y_final in results.jsonl|.

    Raises:
        UserError: a network is missing or broken, or the folder holds no result to measure.
    """
    folder = Path(results)
    rows, left_out = _read_rows(folder)
    config = read_summary(folder)["config"]
    counterfactuals = [row for row in rows if "error" not in row]
    explained, unreadable = measurable(folder, counterfactuals)
    left_out += unreadable
    if not explained:
        why = left_out[0] if left_out else "there is nothing to measure"
        raise UserError(f"{folder} holds no counterfactual that can be measured: {why}")
    threshold = config["method"]["threshold"]
    regressor = regressor or spec_of(_section(config, "regressor"))
    if not regressor:
        raise UserError(f"the config of {folder} names no regressor.checkpoint: give --regressor")
    oracle = oracle or spec_of(_section(config, "oracle"))
    sections = {"oracle": {**_section(config, "oracle"), "model": oracle}} if oracle else {}
    sections |= oracle_sections(config.get("oracles") or "" if oracles is None else oracles)
    predict = load_judge(regressor, config.get("regressor"))
    judges = {}
    for name, section in sections.items():
        judge = load_judge(spec_of(section), section)
        try:
            judge.reader.check_size(read_rgb(image_path(folder, explained[0], "cf"))[None])
            judges[name] = remembering(judge)
        except UserError as error:
            left_out.append(f"{name}: {error}")
    unit = config.get("regressor", {}).get("unit")
    masks = all(row["square_mask"] is not None for row in explained)
    training = None
    if train is not None:
        size = read_image(image_path(folder, explained[0], "input")).shape[0]
        training = load_training_images(Path(train), size)
    labels = label_range({}, _section(config, "regressor"))
    restricted = all(row["mask"] is not None for row in explained)
    plan = make_plan(
        predict, judges, threshold, masks, restricted, weights, suite == "full", training, labels
    )
    names = [row["name"] for row in explained]
    in_unit = {name for name, metric in METRICS.items() if metric.in_unit}
    in_unit |= {f"{name}_{what}" for name in judges for what in ("mae", "error")}

    def figures(values: Mapping[str, np.ndarray], sets: Mapping[str, float]) -> dict[str, Interval]:
        metrics = {
            name: bootstrap_mean(x, names)
            for name, x in values.items()
            if not name.endswith(READING)
        }
        for name, x in sets.items():
            value = x if math.isfinite(x) else None
            metrics[name] = {"mean": value, "low": None, "high": None, "n": len(names)}
        return with_unit(metrics, [name for name in metrics if name in in_unit], unit)

    measured = measure(batches(folder, explained, masks), predict, plan)
    y, values = measured.y, measured.values
    if all("latent_change" in row for row in explained):
        values["latent_distance"] = np.array([row["latent_change"] for row in explained])
    summary = {
        "n": len(explained),
        "originals": len(set(names)),
        "errors": len(rows) - len(counterfactuals),
        "left_out": left_out,
        "unit": unit,
        "threshold": threshold,
        "regressor": str(regressor),
        "oracle": str(oracle) if oracle else None,
        "oracles": {name: spec_of(section) for name, section in sections.items()},
        "largest_change_of_prediction": _largest_change(explained, y),
        "metrics": figures(values, measured.sets),
        "not_computed": dict(plan.missing),
    }

    def relations(found: Measured, image_of: Images) -> dict[str, Interval]:
        readings = {"": found.y} | {name: found.values[f"{name}{READING}"] for name in judges}
        return measure_sweeps(explained, readings, image_of) | diversity(explained, image_of)

    summary["metrics"] |= relations(
        measured, lambda i: read_image(image_path(folder, explained[i], "cf"))
    )
    if axioms:
        found = measure_axioms(folder, explained, config, axioms)
        summary["metrics"] |= with_unit(found, list(in_unit), unit)
    if suite == "full":
        steps = max(1, *(row["iterations"] for row in explained))
        parts = attacked(batches(folder, explained, masks), predict, threshold, steps)
        with Kept() as kept:
            control = measure(kept.passing(parts), predict, plan)
            summary["control"] = figures(control.values, control.sets)
            summary["control"] |= relations(control, kept.image)
    summary["definitions"] = {
        name: {"about": metric.about, "better": metric.better, "reference": metric.reference}
        for name in summary["metrics"]
        if (metric := definition(name))
    }
    summary["published"] = published(config)
    write_file(folder / "metrics.json", (strict_json(summary, indent=2) + "\n").encode())
    write_file(folder / "metrics.csv", metrics_csv(summary["metrics"]).encode())
    write_file(folder / RESULTS_CSV, _results_csv(explained, values).encode())
    scale = paper_scale(config)
    theirs = results_of_the_originals(explained, values, threshold, scale)
    for name, text in zip(("cf_results.json", "results_summary.csv"), theirs, strict=True):
        write_file(folder / name, text.encode())
    return summary


def format_table(
    metrics: Mapping[str, Interval], control: Mapping[str, Interval] | None = None
) -> str:
    """The metrics as a table of text; with the means of the control, if there is one."""
    width = max(26, *(len(name) + 1 for name in metrics))
    head = f"{'metric':<{width}}{'mean':>10}   {'95% interval':<22}{'n':>6}"
    lines = [head + (f"{'pixel attack':>14}" if control else "")]
    for name, interval in metrics.items():
        between = mean = "-"
        if interval["mean"] is not None:
            mean = f"{interval['mean']:.4f}"
        if interval["low"] is not None:
            between = f"{interval['low']:.4f} to {interval['high']:.4f}"
        line = f"{name:<{width}}{mean:>10}   {between:<22}{interval['n']:>6}"
        if control:
            other = control.get(name, {}).get("mean")
            line += f"{'-' if other is None else f'{other:.4f}':>14}"
        lines.append(f"{line}  {interval['unit']}" if "unit" in interval else line)
    return "\n".join(lines)


def _read_rows(folder: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """The lines of results.jsonl, and a sentence if some are broken, which are left out."""
    try:
        return read_results(folder), []
    except UserError as error:
        return read_results(folder, skip_broken=True), [str(error)]  # raises if there is no file


def _largest_change(rows: Sequence[Mapping[str, Any]], y: np.ndarray) -> float | None:
    """The largest |regressor(x') - y_final|, over the rows that have one."""
    known = [(row["y_final"], float(now)) for row, now in zip(rows, y, strict=True)]
    return max((abs(now - then) for then, now in known if then is not None), default=None)


def _results_csv(rows: Sequence[Mapping[str, Any]], values: Mapping[str, np.ndarray]) -> str:
    """The text of a CSV file: what the result is, and one column per metric; empty if unknown."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["name", "target", "answer", *values])
    for i, row in enumerate(rows):
        numbers = [float(column[i]) for column in values.values()]
        cells = [repr(x) if math.isfinite(x) else "" for x in numbers]
        writer.writerow([row["name"], row["target"], row["answer"], *cells])
    return buffer.getvalue()


def _section(config: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    section = config.get(key)
    return section if isinstance(section, Mapping) else {}
