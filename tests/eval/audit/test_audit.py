"""An audit from the outside: a results folder of tiny networks, its numbers and its page."""

import csv
import json
import re
import shutil
import types
from pathlib import Path

import numpy as np
import pytest

from diffcf_jax.data.squares import Squares
from diffcf_jax.errors import UserError
from diffcf_jax.results.log import read_results, write_results
from diffcf_jax.results.summary import summarise, write_summary
from diffcf_jax.results.writer import ResultWriter
from diffcf_jax.workdir import write_config
from eval.audit.__main__ import main
from eval.audit.audit import audit
from eval.audit.verdict import VERDICTS
from tests import tiny
from tests.browsing import browse

N = 12


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run of Diff-AE-RE with an oracle, and a table of attributes."""
    folder = tmp_path_factory.mktemp("audit")
    config = {
        "method": {"name": "diffae-re", "inversion_steps": 4, "decode_steps": 2, "threshold": 0.01},
        "generator": {"checkpoint": tiny.save(folder / "diffae", tiny.DIFFAE)},
        "regressor": {"checkpoint": tiny.save(folder / "regressor", tiny.REGRESSOR)},
        "oracle": {"checkpoint": tiny.save(folder / "oracle", tiny.REGRESSOR, seed=1)},
        "seed": 3,
    }
    out = folder / "out"
    data = Squares("validation", N)
    random = np.random.default_rng(0)
    with ResultWriter(out, data.names) as writer:
        for i, record in enumerate(data[i] for i in range(N)):
            image = record.image.astype(np.float32) / 255
            found = types.SimpleNamespace(
                image=np.clip(image + random.normal(0, 0.1, image.shape), 0, 1).astype(np.float32),
                **{"reconstruction": image, "success": i != 5, "iterations": 3, "curve": [0.5]},
                codes=None,
                **{"y_initial": 0.0, "y_reconstruction": 0.01, "y_final": 0.5 * (-1) ** i},
            )
            writer.save(record, record.target, found, 1.0)
    write_config(out, config)
    write_summary(out, summarise(read_results(out), config, 1.0, {}))
    table = folder / "attributes.csv"
    with table.open("w") as file:
        writer = csv.writer(file)
        writer.writerow(["name", "grey", "odd"])
        for i, name in enumerate(data.names):
            writer.writerow([name, data.latents[i, 1], i % 2])
    return out, table


@pytest.fixture(scope="module")
def found(run):
    out, table = run
    assert main([str(out), f"--attributes={table}", "--clusters=2", "--shams=1"]) == 0
    return json.loads((out / "audit" / "audit.json").read_text())


def test_every_direction_has_an_effect_an_oracle_and_a_sentence(run, found):
    out, _ = run
    rows = found["directions"]
    assert {row["source"] for row in rows} == {"attribute", "counterfactuals", "gradient"}
    assert {"grey", "odd", "counterfactuals 2", "gradient, mean"} <= {row["name"] for row in rows}
    for row in rows:
        effect, oracle = row["effect"], row["oracles"]["oracle"]
        assert effect["n"] == N and effect["low"] <= effect["mean"] <= effect["high"]
        assert row["sham_size"]["mean"] > 0
        assert oracle["gap"]["mean"] == pytest.approx(effect["mean"] - oracle["effect"]["mean"])
        assert row["verdict"] in VERDICTS and row["sentence"].startswith("A step ")
        assert set(row["moved"]) == {"grey", "odd"}
        assert row["distance"]["edit"]["mean"] > 0
        assert row["rchange"]["explained"]["n"] == N - 1
        assert (out / "audit" / row["picture"]).is_file()
        assert [group["attribute"] for group in row["subgroups"]] == ["grey", "odd"]
    (grey,) = (row for row in rows if row["name"] == "grey")
    assert grey["facts"].keys() == {"r2", "agreement"}
    assert (found["n"], found["counterfactuals"], found["smallest"]) == (N, N - 1, 0.01)
    lines = (out / "audit" / "audit.csv").read_text().splitlines()
    assert len(lines) == 1 + len(rows) and lines[0].startswith("direction,source,verdict,effect,")


def test_the_report_leads_to_the_page(run, found):
    out, _ = run
    assert 'href="audit/audit.html"' in (out / "report.html").read_text()
    text = (out / "audit" / "audit.html").read_text()
    assert 'href="../report.html"' in text
    assert not re.search(r"(src|href)=\"?(https?:)?//", text)


def test_order_attributes_and_oracle_change_no_effect(run, found, tmp_path):
    out, _ = run
    write_config(tmp_path, {**json.loads((out / "config.json").read_text()), "oracle": {}})
    write_results(tmp_path, read_results(out)[::-1])
    for folder in ("input", "reconstruction", "cf"):
        shutil.copytree(out / folder, tmp_path / folder)
    alone = audit(tmp_path, clusters=2, shams=1)
    before = {row["name"]: row["effect"]["mean"] for row in found["directions"]}
    assert len(alone["directions"]) == len(before) - 2
    for row in alone["directions"]:
        assert row["effect"]["mean"] == before[row["name"]]
        assert row["oracles"] == row["moved"] == {} and row["verdict"] in ("still", "unjudged")
    assert alone["regression"] is None
    said = " ".join(alone["unsaid"])
    assert "There is no oracle" in said and "No attributes were given" in said
    page = (tmp_path / "audit" / "audit.html").read_text()
    assert "There is no oracle" in page and "Subgroups" not in page


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": {"name": "ac-re"}}, "holds results of ac-re, which changes pixels"),
        ({"generator": {}}, "names no generator.checkpoint: give --generator"),
        ({"regressor": {}}, "names no regressor.checkpoint: give --regressor"),
        ({"generator": {"checkpoint": "nowhere"}}, "no network at .*nowhere"),
        ({"method": 3}, "has no config.json of a run"),
        ({"seed": "x"}, "seed=x must be a whole number"),
    ],
)
def test_folders_that_cannot_be_audited(run, tmp_path, change, message):
    config = json.loads((run[0] / "config.json").read_text())
    write_config(tmp_path, config | change)
    write_results(tmp_path, read_results(run[0]))
    with pytest.raises(UserError, match=message):
        audit(tmp_path)


def test_too_few_images_and_no_success(run, tmp_path):
    out, _ = run
    with pytest.raises(UserError, match="has 3 images; an audit needs 4 at least"):
        audit(out, limit=3)
    write_config(tmp_path, json.loads((out / "config.json").read_text()))
    write_results(tmp_path, [row | {"success": False} for row in read_results(out)])
    with pytest.raises(UserError, match="no counterfactual that reached its target"):
        audit(tmp_path)


def test_the_page_in_a_browser(run, found, tmp_path):
    page = (run[0] / "audit" / "audit.html").read_text()
    script = (Path(__file__).parent / "audit.js").read_text()
    seen = browse(page, script, tmp_path, window="500,900")  # the narrowest that Chromium opens
    assert seen["violations"] == [] and seen["failures"] == []
    names = [row["name"] for row in found["directions"]]
    assert seen["titles"] == names and seen["images"] == 1
    assert seen["yours"] == ["spurious", *["–"] * (len(names) - 1)]
    assert seen["pressed"] == ["spurious"]
    exported = seen["exported"]
    assert (exported["judged"], exported["of"]) == (1, len(names))
    assert exported["verdicts"][0]["direction"] == names[0]
    assert exported["verdicts"][0]["verdict"] == "spurious"
    assert seen["intervals"] == 2 * len(names)
    assert seen["width"][0] <= seen["width"][1]
