"""Means, intervals and counts of a run."""

import json

import pytest

from diffcf_jax.errors import UserError
from diffcf_jax.results.summary import (
    environment,
    read_engine_figures,
    read_summary,
    summarise,
    write_summary,
)


def row(**changes):
    values = {
        "name": "a",
        "target": 0.5,
        "y_initial": 0.1,
        "y_reconstruction": 0.15,
        "y_final": 0.48,
    }
    values |= {"success": True, "iterations": 4, "reason": None}
    return values | {"pixel_change": 0.01, "seconds": 2.0} | changes


def test_summary_counts_and_means():
    rows = [
        row(),
        row(y_final=0.3, success=False, iterations=10, reason="not enough iterations"),
        row(y_final=None, success=False, iterations=10, reason="not enough iterations"),
        {"id": 3, "name": "x", "target": None, "error": "cannot read x"},
    ]
    summary = summarise(rows, {"name": "test"}, 12.5, {"jax": "1"})
    assert (summary["n"], summary["errors"], summary["wall_seconds"]) == (3, 1, 12.5)
    assert summary["reasons"] == {"not enough iterations": 2}
    assert (summary["config"], summary["versions"]) == ({"name": "test"}, {"jax": "1"})
    means = {name: interval["mean"] for name, interval in summary["metrics"].items()}
    assert means == pytest.approx(
        {
            "success_rate": 1 / 3,
            "initial_error": 0.4,
            "final_error": 0.11,
            "reconstruction_gap": 0.05,
            "iterations": 8.0,
            "pixel_change": 0.01,
            "seconds": 2.0,
        }
    )
    assert summary["metrics"]["final_error"]["n"] == 2


def test_summary_files(tmp_path):
    config = {"limit": float("inf"), "targets": (0.2, 0.8)}
    write_summary(tmp_path, summarise([row()], config, 1.0, environment()))
    text = (tmp_path / "summary.json").read_text()
    summary = json.loads(text, parse_constant=pytest.fail)
    assert summary["config"] == {"limit": None, "targets": [0.2, 0.8]}
    assert {"jax", "flax", "numpy", "python", "diffcf_jax", "device"} <= summary["versions"].keys()
    lines = (tmp_path / "summary.csv").read_text().splitlines()
    assert lines[:2] == ["metric,mean,low,high,n,unit", "success_rate,1.0,1.0,1.0,1,"]


def test_metrics_that_are_in_the_labels_unit_say_so(tmp_path):
    config = {"regressor": {"unit": "years"}}
    summary = summarise([row(y_final=30.0, target=40.0)], config, 1.0, {})
    in_years = {name for name, interval in summary["metrics"].items() if "unit" in interval}
    assert in_years == {"initial_error", "final_error", "reconstruction_gap"}
    write_summary(tmp_path, summary)
    assert "final_error,10.0,10.0,10.0,1,years\n" in (tmp_path / "summary.csv").read_text()


def test_summary_of_nothing(tmp_path):
    summary = summarise([], {}, 0.0, {})
    write_summary(tmp_path, summary)
    assert (tmp_path / "summary.csv").read_text().splitlines()[1] == "success_rate,,,,0,"


CONFIG = {"method": {"name": "ac-re", "threshold": 0.05}}


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ({"n": "3"}, "n"),
        ({"wall_seconds": None}, "wall_seconds"),
        ({"versions": []}, "versions"),
        ({"metrics": {}}, "metrics.success_rate"),
        ({"metrics": {"success_rate": 1}}, "metrics.success_rate"),
        ({"metrics": {"x": {"mean": "1", "low": 0, "high": 2, "n": 3}}}, "metrics.x"),
        ({"metrics": {"x": {"mean": 10**400, "low": 0, "high": 2, "n": 3}}}, "metrics.x"),
        ({"reasons": {"a": "b"}}, "reasons"),
        ({"config": {"method": []}}, "config.method.threshold"),
        ({"config": {"method": {"threshold": "0.05"}}}, "config.method.threshold"),
        ({"config": {**CONFIG, "regressor": [1]}}, "config.regressor"),
        ({"config": {**CONFIG, "regressor": {"unit": 3}}}, "config.regressor"),
    ],
)
def test_an_edited_summary_is_named(tmp_path, change, wrong):
    summary = summarise([row()], CONFIG, 1.0, {})
    write_summary(tmp_path, summary)
    assert read_summary(tmp_path)["config"] == CONFIG
    (tmp_path / "summary.json").write_text(json.dumps({**summary, **change}))
    with pytest.raises(
        UserError, match=rf'summary\.json is broken \("{wrong}" is missing or wrong'
    ):
        read_summary(tmp_path)


@pytest.mark.parametrize("text", ["[]", "{", "[" * 100_000, '{"engine": []}'])
def test_a_summary_that_is_none(tmp_path, text):
    (tmp_path / "summary.json").write_text(text)
    assert read_engine_figures(tmp_path) is None
    with pytest.raises(UserError, match=r"summary\.json is broken"):
        read_summary(tmp_path)
