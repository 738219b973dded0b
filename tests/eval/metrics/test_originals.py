"""The originals' files, with the names and definitions of their scripts."""

import csv
import io
import json

import numpy as np
import pytest

from eval.metrics.originals import results_of_the_originals
from eval.metrics.published import paper_scale


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
    values = {
        "oracle_input_reading": np.array([0.2, 9.0, 0.1, 9.0]),
        "oracle_reading": np.array([0.6, 9.0, 0.6, 9.0]),
        "oracle_success_rate": np.array([0.0, 9.0, 1.0, 9.0]),
    }
    results, summary = results_of_the_originals(rows, values, 0.2)
    first, second = json.loads(results)
    assert (first["image_name"], first["image_name_base"]) == ("b.png", "b")
    assert first["y_final_confidence"] == pytest.approx(0.1)
    assert first["confidence_reduction"] == pytest.approx(0.6)
    assert first["confidence_reduction_oracle"] == pytest.approx(0.4)
    assert (first["success_oracle"], second["success_oracle"]) == (False, True)
    assert (second["steps"], second["success"], second["y_initial_true"]) == (8, False, -1)
    found = {line["metric"]: line for line in csv.DictReader(io.StringIO(summary))}
    assert float(found["success_rate"]["mean"]) == 0.5 == float(found["success_rate"]["std"])
    assert float(found["steps"]["mean"]) == 6 and float(found["steps"]["std"]) == 2
    assert float(found["y_final_pred_oracle_mae"]["mean"]) == pytest.approx(0.2)
    assert float(found["y_initial_pred_oracle_mae"]["mean"]) == pytest.approx(0.05)
    assert not {"success_rate_latent", "y_initial_true_mae"} & set(found)


def test_what_the_picture_itself_shows():
    values = {"square_mae": np.array([0.1, 0.3])}
    results, summary = results_of_the_originals([row(y_true=0.2), row(y_true=0.1)], values, 0.2)
    assert [result["success_latent"] for result in json.loads(results)] == [True, False]
    found = {line["metric"]: float(line["mean"]) for line in csv.DictReader(io.StringIO(summary))}
    assert found["y_final_latent_mae"] == pytest.approx(0.2)
    assert (found["success_rate_latent"], found["y_initial_true_mae"]) == (0.5, 0.05)
    assert "success_rate_oracle" not in found


def test_ages_are_in_the_unit_of_the_code():
    config = {"data": {"name": "celeba-hq"}, "method": {"name": "ac-re"}}
    ages = row(target=80.0, y_initial=30.0, y_final=77.0)
    (result,) = json.loads(results_of_the_originals([ages], {}, 5.0, paper_scale(config))[0])
    assert (result["y_target"], result["y_final_pred"]) == (0.8, 0.77)
    assert result["y_final_confidence"] == pytest.approx(0.03)
    assert paper_scale({"data": {"name": "squares"}}) == 1


def test_nothing_to_sum_up():
    results, summary = results_of_the_originals([row(target="40..50")], {}, 0.2)
    assert json.loads(results) == [] and summary.strip() == "metric,mean,std"
