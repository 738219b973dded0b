"""The files that the paper's own scripts read beside `cf/`: cf_results.json, results_summary.csv.

Their names for what is here under others: `steps` are iterations, a `confidence` is a distance to
the target, lower is better. Standard deviations are those of the population.
"""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

import numpy as np

# Their name -> ours, in `evaluate`'s values
_OF_THE_ORACLE = {
    "success_rate_oracle": "oracle_success_rate",
    "y_final_pred_oracle_mae": "oracle_mae",
    "y_final_confidence_oracle": "oracle_error",
}


def results_of_the_originals(
    rows: Sequence[Mapping[str, Any]], values: Mapping[str, np.ndarray]
) -> tuple[str, str]:
    """Returns the texts of cf_results.json and results_summary.csv.

    Results whose target is no number, or whose prediction is not known, are left out.

    Args:
        rows: lines of results.jsonl without errors.
        values: metric -> one value per row.
    """
    kept = [
        i
        for i, row in enumerate(rows)
        if not isinstance(row["target"], str) and None not in (row["y_initial"], row["y_final"])
    ]
    results = [_result(rows[i]) for i in kept]
    columns: dict[str, list[float]] = {"success_rate": [r["success"] for r in results]}
    for name in ("y_initial_confidence", "y_final_confidence", "confidence_reduction", "steps"):
        columns[name] = [result[name] for result in results]
    for theirs, ours in _OF_THE_ORACLE.items():
        if ours in values:
            columns[theirs] = [float(values[ours][i]) for i in kept]
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(["metric", "mean", "std"])
    if results:
        writer.writerows((name, np.mean(x), np.std(x)) for name, x in sorted(columns.items()))
    return json.dumps(results, indent=2) + "\n", buffer.getvalue()


def _result(row: Mapping[str, Any]) -> dict[str, Any]:
    before, after = (abs(row[key] - row["target"]) for key in ("y_initial", "y_final"))
    name = PurePath(row["name"])
    return {
        "confidence_reduction": before - after,
        "image_name": name.name,
        "image_name_base": name.stem,
        "image_path": row["input"],
        "steps": row["iterations"],
        "success": row["success"],
        "y_final_confidence": after,
        "y_final_pred": row["y_final"],
        "y_initial_confidence": before,
        "y_initial_pred": row["y_initial"],
        "y_initial_true": -1 if row["y_true"] is None else row["y_true"],
        "y_target": row["target"],
    }
