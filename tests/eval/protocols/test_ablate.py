"""An ablation on tiny networks: every value is run, measured and drawn."""

import json

import ml_collections
import pytest

from diffcf_jax.errors import UserError
from diffcf_jax.results.log import read_results
from eval.page import write_page
from eval.protocols.ablate import ablate, parse_sweep, with_value
from tests import tiny


@pytest.fixture
def config(tmp_path):
    return ml_collections.ConfigDict({
        "method": {"name": "ac-re", "iterations": 2, "tau": 2, "threshold": 0.05},
        "generator": {"checkpoint": tiny.save(tmp_path / "ddpm", tiny.DDPM)},
        "regressor": {"checkpoint": tiny.save(tmp_path / "regressor", tiny.REGRESSOR)},
        "data": {"name": "squares", "path": "", "limit": 2, "convert": False},
        "targets": "",
        "batch_size": "2",
        "seed": 0,
    })  # fmt: skip


def test_every_value_has_a_run_a_row_and_a_point(tmp_path, config):
    sweep = parse_sweep("method.threshold=0.05,10 ; targets=0.1")
    findings = ablate(config, sweep, tmp_path / "out", "paper")
    thresholds, targets = findings
    assert [row["method.threshold"] for row in thresholds.table.rows] == ["0.05", "10"]
    # Any prediction is within 10 of the target.
    assert [row["success_rate"] for row in thresholds.table.rows][1] == 1
    assert len(read_results(tmp_path / "out" / "method.threshold=10")) == 2
    assert {row["target"] for row in read_results(tmp_path / "out" / "targets=0.1")} == {0.1}
    plot = next(plot for plot in thresholds.plots if plot.title.startswith("l1"))
    assert [x for x, _ in plot.series["method.threshold"]] == [0.05, 10] and plot.log
    assert len(plot.intervals["method.threshold"]) == 2
    assert len(targets.table.rows) == 1
    page = write_page(tmp_path / "out", "ablation", "Ablation", findings)
    assert 'class="bar s0"' in page.read_text()
    numbers = json.loads((tmp_path / "out" / "ablation.json").read_text())
    assert len(numbers["method_threshold"]["rows"]) == 2


def test_values_take_the_type_of_the_key(config):
    assert with_value(config, "method.threshold", "1").method.threshold == 1.0
    assert with_value(config, "targets", "0.5").targets == "0.5"
    assert config.method.threshold == 0.05
    with pytest.raises(UserError, match=r"names method\.taus, and the config has no such key"):
        with_value(config, "method.taus", "1")
    with pytest.raises(UserError, match=r"method\.tau=0\.5 does not fit.*method\.tau=2"):
        with_value(config, "method.tau", "0.5")
    with pytest.raises(UserError, match=r"names seed\.x"):
        with_value(config, "seed.x", "1")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("method.tau", "has the part 'method.tau': write KEY=VALUE"),
        ("method.tau=1,,2", "write KEY=VALUE"),
        ("seed=1;seed=2", "has seed, or one of its values, twice"),
        ("seed=1,1", "twice"),
    ],
)
def test_wrong_sweeps(text, message):
    with pytest.raises(UserError, match=message):
        parse_sweep(text)
