"""The files that the paper's own scripts read beside `cf/`: cf_results.json, results_summary.csv.

Their names for what is here under others: `steps` are iterations, a `confidence` is a distance to
the target, lower is better, and `latent` is what the counterfactual's square shows. Standard
deviations are those of the population.
"""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

import numpy as np

from .regressor import INPUT_READING, READING

# A line of results_summary.csv -> the key of a result that it sums up
_SUMMARY = {
    "success_rate": "success",
    "success_rate_latent": "success_latent",
    "success_rate_oracle": "success_oracle",
} | {
    name: name
    for name in (
        *("confidence_reduction", "confidence_reduction_oracle", "steps"),
        *("y_final_confidence", "y_final_confidence_oracle", "y_final_latent_mae"),
        *("y_final_pred_oracle_mae", "y_initial_confidence", "y_initial_confidence_oracle"),
        *("y_initial_pred_oracle_mae", "y_initial_true_mae"),
    )
}


def results_of_the_originals(
    rows: Sequence[Mapping[str, Any]],
    values: Mapping[str, np.ndarray],
    threshold: float,
    scale: float = 1.0,
) -> tuple[str, str]:
    """Returns the texts of cf_results.json and results_summary.csv.

    Results whose target is no number, or whose prediction is not known, are left out.

    Args:
        rows: lines of results.jsonl without errors.
        values: metric, or reading of the oracle -> one value per row.
        threshold: within which a square counts as a success.
        scale: what predictions are multiplied by, to be in the unit of the paper's code.
    """
    results = [
        _result(row, {name: float(x[i]) for name, x in values.items()}, threshold, scale)
        for i, row in enumerate(rows)
        if not isinstance(row["target"], str) and None not in (row["y_initial"], row["y_final"])
    ]
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(["metric", "mean", "std"])
    for name, key in sorted(_SUMMARY.items()):
        if results and all(key in result for result in results):
            column = [result[key] for result in results]
            writer.writerow((name, np.mean(column), np.std(column)))
    return json.dumps(results, indent=2) + "\n", buffer.getvalue()


def _result(
    row: Mapping[str, Any], values: Mapping[str, float], threshold: float, scale: float
) -> dict[str, Any]:
    target, before, after = (row[key] * scale for key in ("target", "y_initial", "y_final"))
    name = PurePath(row["name"])
    result = {
        "image_name": name.name,
        "image_name_base": name.stem,
        "image_path": row["input"],
        "steps": row["iterations"],
        "success": row["success"],
        "y_initial_true": -1 if row["y_true"] is None else row["y_true"] * scale,
        "y_target": target,
        **_readings("", before, after, target),
    }
    if row["y_true"] is not None:
        result["y_initial_true_mae"] = abs(result["y_initial_true"] - before)
    if "square_mae" in values:
        result["y_final_latent_mae"] = values["square_mae"] * scale
        result["success_latent"] = values["square_mae"] <= threshold
    if f"oracle{READING}" in values:
        of_oracle = [values[f"oracle{end}"] * scale for end in (INPUT_READING, READING)]
        result |= _readings("_oracle", *of_oracle, target)
        result["y_initial_pred_oracle_mae"] = abs(of_oracle[0] - before)
        result["y_final_pred_oracle_mae"] = abs(of_oracle[1] - after)
        result["success_oracle"] = values["oracle_success_rate"] == 1
    return dict(sorted(result.items()))


def _readings(whose: str, before: float, after: float, target: float) -> dict[str, float]:
    """What somebody says of input and counterfactual, and how far that is from the target."""
    return {
        f"y_initial_pred{whose}": before,
        f"y_final_pred{whose}": after,
        f"y_initial_confidence{whose}": abs(before - target),
        f"y_final_confidence{whose}": abs(after - target),
        f"confidence_reduction{whose}": abs(before - target) - abs(after - target),
    }
