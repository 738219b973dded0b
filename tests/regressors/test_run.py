"""A run of the command line with a model from outside as regressor and as oracle."""

import numpy as np
import pytest

from diffcf_jax import load_regressor
from diffcf_jax.errors import UserError
from diffcf_jax.files import read_image
from diffcf_jax.jsonfile import read_json
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
        "regressor": {**model, "output": "column=1 mean=10 scale=5", "unit": "years"},
        "oracle": {**model, "output": "column=2"},
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
    summary = evaluate(tmp_path)
    assert summary["largest_change_of_prediction"] < 1e-4
    oracle = load_regressor(section["model"], "none", "column=2")
    error = np.abs(np.asarray(oracle(images)) - 11).mean()
    assert summary["metrics"]["oracle_error"]["mean"] == pytest.approx(error, rel=1e-4)
    # The same model, but prepared in another way, explains something else.
    other = {**config, "regressor": {**section, "preprocess": "range=255"}}
    with pytest.raises(UserError, match="holds results of another config: .*preprocess"):
        run(tmp_path, **other)
