"""How the counterfactuals of an image follow each other along its targets."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from diffcf_jax.results.log import image_path
from diffcf_jax.results.statistics import Interval, bootstrap_mean

from .batch import read_rgb

Row = Mapping[str, Any]

_FEWEST = 3  # targets


def sweeps(rows: Sequence[Row]) -> list[list[int]]:
    """The places of each image's (and answer's) rows whose targets are numbers, by target."""
    numbers = [i for i, row in enumerate(rows) if not isinstance(row["target"], str)]

    def image(i: int) -> tuple[str, int]:
        return rows[i]["name"], rows[i]["answer"]

    ordered = sorted(numbers, key=lambda i: (*image(i), rows[i]["target"]))
    groups = [list(group) for _, group in itertools.groupby(ordered, key=image)]
    return [group for group in groups if len(group) >= _FEWEST]


def sweep_metrics(
    images: np.ndarray, targets: Sequence[float], readings: Mapping[str, np.ndarray]
) -> dict[str, float]:
    """Metrics of one image's sweep x'_1 ... x'_K, in the order of its targets t_k.

    With d_k = x'_{k+1} - x'_k, |d| the root of its mean square, and y the regressor:

        kendall_tau = tau-b of t_k and y(x'_k)                 NAME_kendall_tau with an oracle
        path_length = sum_k |d_k| / |y(x'_K) - y(x'_1)|
        path_curvature = mean_k arccos(d_k . d_{k+1} / (|d_k| |d_{k+1}|))

    NaN where a number is not defined: readings that are all alike, steps of length 0.

    Args:
        images: [K, H, W, 3] in [0, 1], K at least 3.
        targets: [K], rising.
        readings: what the regressor ("") and each oracle (its name) says of the images, [K].
    """
    steps = np.diff(images.reshape(len(images), -1).astype(np.float64), axis=0)
    lengths = np.sqrt(np.mean(steps**2, axis=1))
    y = readings[""].astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        cosines = np.mean(steps[:-1] * steps[1:], axis=1) / (lengths[:-1] * lengths[1:])
        per_unit = lengths.sum() / np.abs(y[-1] - y[0])
    taus = {
        f"{name}_kendall_tau".removeprefix("_"): stats.kendalltau(targets, found).statistic
        for name, found in readings.items()
    }
    angle = np.mean(np.arccos(np.clip(cosines, -1, 1)))
    return {**taus, "path_length": per_unit, "path_curvature": angle}


def measure_sweeps(
    folder: Path, rows: Sequence[Row], readings: Mapping[str, np.ndarray]
) -> dict[str, Interval]:
    """`sweep_metrics` of all images that have a sweep: their means; {} without one.

    Args:
        folder: the results folder.
        rows: lines of its results.jsonl without errors.
        readings: see `sweep_metrics`, one per row.
    """
    groups = sweeps(rows)
    found = [
        sweep_metrics(
            np.stack([read_rgb(image_path(folder, rows[i], "cf")) for i in group]),
            [rows[i]["target"] for i in group],
            {name: y[group] for name, y in readings.items()},
        )
        for group in groups
    ]
    names = [rows[group[0]]["name"] for group in groups]
    keys = found[0] if found else ()
    return {key: bootstrap_mean([each[key] for each in found], names) for key in keys}
