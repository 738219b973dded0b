"""A run of the command line with a model from outside as regressor and as oracle."""

import numpy as np
import pytest

from diffcf_jax import load_network, load_regressor
from diffcf_jax.errors import UserError
from diffcf_jax.files import read_image
from diffcf_jax.jsonfile import read_json
from diffcf_jax.regressors.readings import open_oracles, oracle_sections
from diffcf_jax.results.log import read_results
from diffcf_jax.run import run
from eval.metrics.evaluate import evaluate
from tests import tiny
from tests.regressors import onnx_files as files


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("networks")
    files.convnet(folder / "m.onnx")
    model = {"checkpoint": "", "model": str(folder / "m.onnx"), "preprocess": "none"}
    return {
        "method": {"name": "ac-re", "iterations": 2, "tau": 1, "threshold": 0.05},
        "generator": {"checkpoint": tiny.save(folder / "ddpm", tiny.DDPM)},
        "regressor": {**model, "output": "column=1 mean=10 scale=5 report=2", "unit": "years"},
        "oracle": {**model, "output": "column=2"},
        "oracles": (
            {**model, "output": "column=0", "name": "first"},
            {"checkpoint": tiny.save(folder / "other" / "best", tiny.REGRESSOR)},
        ),
        "data": {"name": "squares", "path": "", "limit": 2, "convert": False},
        "targets": "11",
        "batch_size": 2,
        "seed": 0,
    }


def test_a_run_and_its_evaluation_read_the_same(config, tmp_path):
    run(tmp_path, **config)
    rows = read_results(tmp_path)
    images = np.stack([read_image(tmp_path / row["cf"]) for row in rows]).astype(np.float32) / 255
    section = config["regressor"]
    regressor = load_regressor(section["model"], section["preprocess"], section["output"])
    np.testing.assert_allclose([row["y_final"] for row in rows], regressor(images), rtol=1e-5)
    assert read_json(tmp_path / "summary.json")["config"]["regressor"]["unit"] == "years"
    page = (tmp_path / "report.html").read_text()
    summary = evaluate(tmp_path)
    assert summary["largest_change_of_prediction"] < 1e-4
    oracle = load_regressor(section["model"], "none", "column=2")
    error = np.abs(np.asarray(oracle(images)) - 11).mean()
    assert summary["metrics"]["oracle_error"]["mean"] == pytest.approx(error, rel=1e-4)
    other = load_network(config["oracles"][1]["checkpoint"])
    expected = {
        "first": load_regressor(section["model"], "none", "column=0")(images),
        "other": other.module.apply(other.variables, images),
        "output 2": load_regressor(section["model"], "none", "column=2")(images),
    }
    for name, y in expected.items():
        readings = [row["readings"][name] for row in rows]
        np.testing.assert_allclose([pair["after"] for pair in readings], y, rtol=1e-4)
        assert all(pair["before"] != pair["after"] for pair in readings)
        assert f'"{name}":{{"before":{readings[0]["before"]}' in page
    for name in ("first", "other"):
        error = np.abs(np.asarray(expected[name]) - 11).mean()
        assert summary["metrics"][f"{name}_error"]["mean"] == pytest.approx(error, rel=1e-4)
    # The same model, but prepared in another way, explains something else.
    other = {**config, "regressor": {**section, "preprocess": "range=255"}}
    with pytest.raises(UserError, match="holds results of another config: .*preprocess"):
        run(tmp_path, **other)


def test_oracles_are_named_by_their_files():
    named = oracle_sections("age-v1.onnx, runs/second/best,runs/oracle/best,my.models:age,")
    assert list(named) == ["age-v1", "second", "runs/oracle/best", "age"]
    assert list(oracle_sections("a/m.onnx,b/m.onnx")) == ["a/m.onnx", "b/m.onnx"]
    assert oracle_sections("") == {} == oracle_sections(())
    for oracles, expected in (
        ("a.onnx,a.onnx", "has one oracle twice"),
        ([{"model": "", "checkpoint": ""}], "must be a,b with a network directory"),
        (["a.onnx"], "must be a,b with a network directory"),
    ):
        with pytest.raises(UserError, match=expected):
            oracle_sections(oracles)
    with pytest.raises(UserError, match=r"config.oracles, none: cannot read .*none.onnx"):
        open_oracles("none.onnx", 8)
