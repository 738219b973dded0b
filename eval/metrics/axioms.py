"""What every counterfactual generator should keep, by explaining saved images once more."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffcf_jax.errors import UserError
from diffcf_jax.explainer import Explainer
from diffcf_jax.results.log import image_path
from diffcf_jax.results.statistics import Interval, bootstrap_mean
from diffcf_jax.run import open_explainer

from .batch import read_rgb

Row = Mapping[str, Any]

_NULL_EDITS = 10


def measure_axioms(
    folder: Path, rows: Sequence[Row], config: Mapping[str, Any], limit: int
) -> dict[str, Interval]:
    """Explains the first images with numbers as targets again, which takes the run's time anew.

    With E(x, t) the run's method, y its regressor, |d| the mean over pixels and channels, and a
    null edit N(x) = E(x, y(x)), which asks for the prediction that is there:

        composition_1 = |N(x) - x|           composition_10 = |N(...N(x)) - x|, ten times
        reversibility = |E(x', y(x)) - x|
        change_seed = |y(x') - y(x'_s)|, distance_seed = |x' - x'_s|    with x'_s of the next seed

    One answer is searched, without masks. Changes of the prediction are in its unit.

    Args:
        folder: the results folder.
        rows: lines of its results.jsonl without errors.
        config: of the run.
        limit: the number of images; of each, its first target counts.

    Raises:
        UserError: the config does not name the networks, or there is no such result.

    Reference: Monteiro et al., Measuring axiomatic soundness of counterfactual image models,
    ICLR 2023.
    """
    first: dict[str, Row] = {}
    for row in rows:
        if not isinstance(row["target"], str):
            first.setdefault(row["name"], row)
    chosen = list(first.values())[:limit]
    if not chosen:
        raise UserError(f"{folder} holds no result whose target is a number: leave --axioms out")
    names = [row["name"] for row in chosen]
    x, cf = (
        np.stack([read_rgb(image_path(folder, row, key)) for row in chosen])
        for key in ("input", "cf")
    )
    y_initial, y_final, target = (
        np.array([row[key] for row in chosen], np.float32)
        for key in ("y_initial", "y_final", "target")
    )
    explainer, of_next_seed = (_explainer(config, folder, more) for more in (0, 1))
    null_edits = [x]
    for _ in range(_NULL_EDITS):
        null_edits.append(explainer.explain(null_edits[-1], y_initial, names).image)
    back = explainer.explain(cf, y_initial, names).image
    other = of_next_seed.explain(x, target, names)
    found = {
        "composition_1": _distance(null_edits[1], x),
        "composition_10": _distance(null_edits[-1], x),
        "reversibility": _distance(back, x),
        "change_seed": np.abs(other.y_final - y_final),
        "distance_seed": _distance(other.image, cf),
    }
    return {name: bootstrap_mean(values, names) for name, values in found.items()}


def _explainer(config: Mapping[str, Any], folder: Path, more: int) -> Explainer:
    """The explainer of a run, of a later seed."""
    sections = {key: config.get(key) or {} for key in ("method", "generator", "regressor")}
    if not sections["generator"].get("checkpoint"):
        raise UserError(
            f"the config of {folder} names no generator.checkpoint, which --axioms needs: explain "
            "the images from the command line, or leave --axioms out"
        )
    if "answers" in sections["method"]:
        sections["method"] = {**sections["method"], "answers": 1}
    return open_explainer(
        **sections, batch_size=config["batch_size"], seed=config["seed"] + more,
        refiner=config.get("refiner"),
    )  # fmt: skip


def _distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.abs(a - b).mean((1, 2, 3))
