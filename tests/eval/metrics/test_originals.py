"""The originals' files, with the names and definitions of their scripts."""

import csv
import io
import json

import numpy as np
import pytest

from eval.metrics.originals import results_of_the_originals


def row(**changes):
    base = {"name": "a/b.png", "target": 0.8, "y_true": None, "y_initial": 0.1, "y_final": 0.7}
    return {**base, "success": True, "iterations": 4, "input": "input/a/b.png"} | changes


def test_results_and_their_summary():
    rows = [
        row(),
        row(target="max"),
        row(y_final=0.3, success=False, iterations=8),
        row(y_final=None),
    ]
    values = {"oracle_mae": np.array([0.1, 9.0, 0.3, 9.0])}
    results, summary = results_of_the_originals(rows, values)
    first, second = json.loads(results)
    assert (first["image_name"], first["image_name_base"]) == ("b.png", "b")
    assert first["y_final_confidence"] == pytest.approx(0.1)
    assert first["confidence_reduction"] == pytest.approx(0.6)
    assert (second["steps"], second["success"], second["y_initial_true"]) == (8, False, -1)
    found = {line["metric"]: line for line in csv.DictReader(io.StringIO(summary))}
    assert float(found["success_rate"]["mean"]) == 0.5 == float(found["success_rate"]["std"])
    assert float(found["steps"]["mean"]) == 6 and float(found["steps"]["std"]) == 2
    assert float(found["y_final_pred_oracle_mae"]["mean"]) == pytest.approx(0.2)
    assert "success_rate_oracle" not in found


def test_nothing_to_sum_up():
    results, summary = results_of_the_originals([row(target="40..50")], {})
    assert json.loads(results) == [] and summary.strip() == "metric,mean,std"
