"""Explaining results again, from the outside."""

import json

import pytest

from diffcf_jax.errors import UserError
from eval.metrics.evaluate import evaluate
from tests.explaining import explain, save_networks


def test_axioms_and_support(tmp_path):
    """A null edit changes little, ten of them more, and less than a way there and back."""
    flags = save_networks(tmp_path / "nets")
    more = ["--config.data.limit=3", "--config.targets=0.3,0.9", "--config.regressor.labels=0..0.5"]
    explain(tmp_path / "out", *flags, *more)
    metrics = evaluate(tmp_path / "out", axioms=2)["metrics"]
    names = ["composition_1", "composition_10", "reversibility", "change_seed", "distance_seed"]
    assert [metrics[name]["n"] for name in names] == 5 * [2]
    means = [metrics[name]["mean"] for name in names]
    assert 0 < means[0] < means[1] < 0.1 and 0 < means[2] < 0.5 and 0 < means[4] < 0.5
    assert metrics["support"]["mean"] == 0.5
    assert "0.9: beyond the training labels, 0..0.5." in (tmp_path / "out/report.html").read_text()
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    summary["config"]["generator"] = {"kind": "ddpm"}
    (tmp_path / "out" / "summary.json").write_text(json.dumps(summary))
    with pytest.raises(UserError, match=r"names no generator.checkpoint, which --axioms needs"):
        evaluate(tmp_path / "out", axioms=2)
