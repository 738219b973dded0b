"""Metrics of a finished run, measured on the saved PNG files.

    diffcf evaluate --results OUT [--regressor DIR] [--oracle DIR]
    python -m eval.metrics --results OUT                              (the same in a clone)

prints a table and writes OUT/metrics.json and OUT/metrics.csv. What is measured is what the user
gets: the networks see the images as they were saved, not as they were in memory.

    square_mae                |mean red value inside the square of x' - target|; squares only
    background_mae            |mean of x' - mean of x| outside the square; squares only
    background_mae_per_pixel  mean |x' - x| outside the square; squares only
    success_rate              |regressor(x') - target| <= threshold
    final_error               |regressor(x') - target|
    iterations                optimisation steps
    oracle_mae                |oracle(x') - regressor(x')|, the paper's Oracle MAE
    oracle_error              |oracle(x') - target|
    oracle_success_rate       |oracle(x') - target| <= threshold
    diversity                 mean of |x'_i - x'_j| over the pairs of answers for one image and
                              target, a value for each of these; only where there are several

The oracle is a second regressor, trained independently. Errors are in the label's unit, which the
config of the run or the checkpoint names. To a range they are 0 inside and else the distance to the
nearer end; the targets min and max are in no mean of success or error. Inputs that could not be
explained are in none of the means; results that did not succeed are in all of them. Each of several
answers for one image and target is a result.
"""

import functools
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags

from diffcf_jax import cli, shipped
from diffcf_jax.checkpoint.network import REGRESSORS
from diffcf_jax.checkpoint.store import load_network
from diffcf_jax.data.squares import background_color, inner_square_color
from diffcf_jax.errors import UserError
from diffcf_jax.files import read_image, write_file
from diffcf_jax.jsonfile import strict_json
from diffcf_jax.regressors import load
from diffcf_jax.results.answers import pairwise_distances, together
from diffcf_jax.results.log import image_path, read_results
from diffcf_jax.results.summary import (
    Interval,
    bootstrap_mean,
    metrics_csv,
    read_summary,
    with_unit,
)
from diffcf_jax.target import nearest
from diffcf_jax.units import Unit, unit_of

BATCH_SIZE = 64
IN_UNIT = ("final_error", "oracle_mae", "oracle_error")

# Images [B, H, W, 3] float32 in [0, 1], B at most BATCH_SIZE, to predictions [B].
Predict = Callable[[np.ndarray], np.ndarray]


def evaluate(
    results: str | Path, regressor: str | Path | None = None, oracle: str | Path | None = None
) -> dict[str, Any]:
    """Measures a results folder and writes metrics.json and metrics.csv into it.

    Args:
        results: the folder.
        regressor: network directory; None: the one in the run's config.
        oracle: network directory; None: the one in the run's config; without one the oracle's
            metrics are left out.

    Returns:
        `metrics` (name -> `bootstrap_mean`), `n`, `errors`, `unit`, `threshold`, the two
        checkpoints, and `largest_change_of_prediction`: max |regressor(x') - y_final in
        results.jsonl|.

    Raises:
        UserError: a file is missing or broken, or the folder holds no result.
    """
    folder = Path(results)
    rows = read_results(folder)
    config = read_summary(folder)["config"]
    explained = [row for row in rows if "error" not in row]
    if not explained:
        raise UserError(f"{folder} holds no counterfactual: there is nothing to measure")
    threshold = config["method"]["threshold"]
    regressor = regressor or _checkpoint(config, "regressor")
    if regressor is None:
        raise UserError(f"the config of {folder} names no regressor.checkpoint: give --regressor")
    oracle = oracle or _checkpoint(config, "oracle")
    predict = load_regressor(regressor, config.get("regressor"))
    predict_oracle = None if oracle is None else load_regressor(oracle, config.get("oracle"))
    values = measure(folder, explained, threshold, predict, predict_oracle)
    changes = values.pop("change_of_prediction")
    if several := together(explained):
        values["diversity"] = [diversity(folder, rows) for rows in several]
    unit = config.get("regressor", {}).get("unit")
    summary = {
        "n": len(explained),
        "errors": len(rows) - len(explained),
        "unit": unit,
        "threshold": threshold,
        "regressor": str(regressor),
        "oracle": None if oracle is None else str(oracle),
        "largest_change_of_prediction": max(changes, default=None),
        "metrics": with_unit({k: bootstrap_mean(x) for k, x in values.items()}, IN_UNIT, unit),
    }
    write_file(folder / "metrics.json", (strict_json(summary, indent=2) + "\n").encode())
    write_file(folder / "metrics.csv", metrics_csv(summary["metrics"]).encode())
    return summary


def measure(
    folder: Path,
    rows: Sequence[Mapping[str, Any]],
    threshold: float,
    predict: Predict,
    predict_oracle: Predict | None = None,
) -> dict[str, list[float]]:
    """Measures each result.

    Args:
        folder: the results folder.
        rows: lines of its results.jsonl without errors.
        threshold: largest distance to the target that counts as success.
        predict: the regressor.
        predict_oracle: the oracle; None leaves its metrics out.

    Returns:
        Metric -> one value per row, and `change_of_prediction` for the rows with a finite
        y_final. The metrics of the squares are there if every row has a square mask.
    """
    squares = all(row["square_mask"] is not None for row in rows)
    values: dict[str, list[float]] = {}

    def add(name: str, batch: Iterable[float]) -> None:
        values.setdefault(name, []).extend(float(value) for value in batch)

    for start in range(0, len(rows), BATCH_SIZE):
        batch = rows[start : start + BATCH_SIZE]
        images = [_read_rgb(image_path(folder, row, "cf")) for row in batch]
        targets = [row["target"] for row in batch]
        if squares:
            for row, image in zip(batch, images, strict=True):
                mask = read_image(image_path(folder, row, "square_mask")) > 127
                original = _read_rgb(image_path(folder, row, "input"))
                for name, value in square_metrics(original, image, mask, row["target"]).items():
                    add(name, [value])
        y = _predict_files(predict, folder, batch, images)
        success, misses = _judge(y, targets, threshold)
        add("success_rate", success)
        add("final_error", misses)
        add("iterations", [row["iterations"] for row in batch])
        if predict_oracle is not None:
            y_oracle = _predict_files(predict_oracle, folder, batch, images)
            add("oracle_mae", np.abs(y_oracle - y))
            success, misses = _judge(y_oracle, targets, threshold)
            add("oracle_error", misses)
            add("oracle_success_rate", success)
        known = [(row["y_final"], now) for row, now in zip(batch, y, strict=True)]
        add("change_of_prediction", [abs(now - y) for y, now in known if y is not None])
    return values


def diversity(folder: Path, rows: Sequence[Mapping[str, Any]]) -> float:
    """Mean |x'_i - x'_j| over pixels, channels and all pairs of answers, full range 1."""
    images = [read_image(image_path(folder, row, "cf")) for row in rows]
    return float(np.mean(list(pairwise_distances(images).values())))


def _judge(
    predictions: np.ndarray, targets: Sequence[float | str], threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    """Which predictions count as a success, and their distances; NaN where the target is extreme.

    A range has no threshold: inside the distance is 0, outside that to the nearer end.
    """
    success, misses = np.full((2, len(targets)), np.nan, np.float32)
    for i, (y, target) in enumerate(zip(predictions, targets, strict=True)):
        wanted = nearest(float(y), target)
        if wanted is not None:
            misses[i] = np.abs(y - np.float32(wanted))
            success[i] = misses[i] <= np.float32(0 if isinstance(target, str) else threshold)
    return success, misses


def square_metrics(
    image: np.ndarray, counterfactual: np.ndarray, mask: np.ndarray, target: float | str
) -> dict[str, float]:
    """Metrics of one square.

    With b(x) the mean of x outside the inner square, the grey border included:

        square_mae = |mean red of x' inside - target|,   background_mae = |b(x') - b(x)|,
        background_mae_per_pixel = mean |x' - x| outside.

    Args:
        image: [H, W, 3] in [0, 1], x.
        counterfactual: [H, W, 3] in [0, 1], x'.
        mask: bool [H, W], True inside the inner square.
        target: value that the square should have, in [0, 1]; or a range, whose nearest value
            counts, "min" or "max", which leave square_mae NaN.
    """
    color = inner_square_color(counterfactual, mask)
    wanted = nearest(color, target)
    background = background_color(counterfactual, mask) - background_color(image, mask)
    return {
        "square_mae": math.nan if wanted is None else float(abs(color - wanted)),
        "background_mae": float(abs(background)),
        "background_mae_per_pixel": float(
            np.mean(np.abs(counterfactual.astype(np.float64) - image)[~mask])
        ),
    }


def load_regressor(directory: str | Path, config: Mapping[str, Any] | None = None) -> Predict:
    """Loads a regressor as a function that is compiled once, for BATCH_SIZE images.

    Its predictions are in the label's unit: mean + scale * network(images).

    Args:
        directory: of the network, or any other regressor that `diffcf_jax.load_regressor` reads.
        config: may hold `unit`, `mean` and `scale`, which come before the checkpoint's, and
            `preprocess` and `output` of another regressor.

    Raises:
        UserError: the network directory is missing or broken, or holds no regressor; when called,
            images of another size than the network's.
    """
    config = config or {}
    if load.is_external(directory):
        texts = (config.get(key) or "" for key in ("preprocess", "output"))
        regressor = load.load_regressor(directory, *texts, unit_of({}, config))
        return _in_batches(regressor.apply, regressor.variables, regressor.unit)
    network = load_network(directory)
    if network.kind not in REGRESSORS:
        raise UserError(f'{directory} holds a "{network.kind}", not a regressor: give another one')
    size = network.description["image_size"]
    unit = unit_of(network.description, config)
    predict_batch = _in_batches(network.module.apply, network.variables, unit)

    def predict(images: np.ndarray) -> np.ndarray:
        if images.shape[1:] != (size, size, 3):
            height, width = images.shape[1:3]
            raise UserError(
                f"{directory} takes images of {size}x{size} pixels, and these have "
                f"{width}x{height}: give the regressor of this run"
            )
        return predict_batch(images)

    return predict


def _in_batches(apply: Callable[..., Any], variables: Any, unit: Unit) -> Predict:
    """A function of at most BATCH_SIZE images that is compiled once for images of one size."""
    apply = jax.jit(apply)

    def predict(images: np.ndarray) -> np.ndarray:
        padded = np.zeros([BATCH_SIZE, *images.shape[1:]], np.float32)
        padded[: len(images)] = images
        return unit.denormalise(np.asarray(apply(variables, padded))[: len(images)])

    return predict


def format_table(metrics: Mapping[str, Interval]) -> str:
    """The metrics as a table of text."""
    lines = [f"{'metric':<26}{'mean':>10}   {'95% interval':<22}{'n':>6}"]
    for name, interval in metrics.items():
        if interval["mean"] is None:
            lines.append(f"{name:<26}{'-':>10}   {'-':<22}{0:>6}")
            continue
        between = f"{interval['low']:.4f} to {interval['high']:.4f}"
        line = f"{name:<26}{interval['mean']:>10.4f}   {between:<22}{interval['n']:>6}"
        lines.append(f"{line}  {interval['unit']}" if "unit" in interval else line)
    return "\n".join(lines)


def _predict_files(
    predict: Predict, folder: Path, rows: Sequence[Mapping[str, Any]], images: list[np.ndarray]
) -> np.ndarray:
    """Predictions for images that must be of one size, float32 [B]."""
    for row, image in zip(rows, images, strict=True):
        if image.shape != images[0].shape:
            raise UserError(f"{folder / row['cf']} is not of the size of the other images")
    return np.asarray(predict(np.stack(images).astype(np.float32)), np.float32)


def _read_rgb(path: Path) -> np.ndarray:
    """A saved image, float64 [H, W, 3] in [0, 1]."""
    image = read_image(path)
    if image.ndim != 3 or image.shape[2] != 3:
        raise UserError(f"{path} is not an RGB image: run {shipped.command('explain')} again")
    return image / 255


def _checkpoint(config: Mapping[str, Any], key: str) -> str | None:
    section = config.get(key)
    if not isinstance(section, Mapping):
        return None
    return section.get("model") or section.get("checkpoint")


def _define(values: flags.FlagValues) -> None:
    cli.define_path(values, "results", "The folder of a finished run, its --workdir.")
    cli.define_path(values, "regressor", "A regressor; without it, the one in the run's config.")
    cli.define_path(
        values, "oracle", "A regressor; without it, the one in the run's config, if any."
    )


def _evaluate(args: flags.FlagValues, _: list[str]) -> None:
    summary = evaluate(args.results, args.regressor, args.oracle)
    print(format_table(summary["metrics"]))
    print(f"{summary['n']} counterfactuals, {summary['errors']} failed inputs")
    print(
        "the regressor's predictions for the saved images differ from results.jsonl by at most "
        f"{summary['largest_change_of_prediction'] or 0.0:.1e} {summary['unit'] or ''}".rstrip()
    )
    print(f"written: {args.results / 'metrics.json'} and metrics.csv")


main = cli.Command(
    program=functools.partial(shipped.command, "evaluate"),
    about="Measures the saved images of a run; writes metrics.json and metrics.csv beside them.",
    run=_evaluate,
    define=_define,
    required=("results",),
)

if __name__ == "__main__":
    sys.exit(main())
