"""How the counterfactuals of an image follow each other along its targets, and differ for one."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from diffcf_jax.results.answers import pairwise_distances, together
from diffcf_jax.results.log import key_of
from diffcf_jax.results.statistics import Interval, bootstrap_mean

Row = Mapping[str, Any]
Images = Callable[[int], np.ndarray]  # the place of a row to its image, uint8 [H, W, 3]

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
    rows: Sequence[Row], readings: Mapping[str, np.ndarray], image_of: Images
) -> dict[str, Interval]:
    """`sweep_metrics` of all images that have a sweep: their means; {} without one.

    Args:
        rows: lines of results.jsonl without errors.
        readings: see `sweep_metrics`, one per row.
        image_of: the counterfactual of a row, by its place.
    """
    groups = sweeps(rows)
    found = [
        sweep_metrics(
            np.stack([image_of(i) / 255 for i in group]),
            [rows[i]["target"] for i in group],
            {name: y[group] for name, y in readings.items()},
        )
        for group in groups
    ]
    names = [rows[group[0]]["name"] for group in groups]
    keys = found[0] if found else ()
    return {key: bootstrap_mean([each[key] for each in found], names) for key in keys}


def diversity(rows: Sequence[Row], image_of: Images) -> dict[str, Interval]:
    """`diversity`, the mean |x'_i - x'_j| over pixels, channels and all pairs of answers.

    {} without several answers. The arguments are those of `measure_sweeps`.
    """
    places = {key_of(row): i for i, row in enumerate(rows)}
    found = {}
    for group in together(rows):
        images = [image_of(places[key_of(row)]) for row in group]
        found[key_of(group[0])] = np.mean(list(pairwise_distances(images).values()))
    names = [name for name, *_ in found]
    return {"diversity": bootstrap_mean(list(found.values()), names)} if found else {}
