import json

import numpy as np
import pytest
from PIL import Image

from diffcf_jax.errors import UserError
from diffcf_jax.inputs import parse_targets
from diffcf_jax.report.results import read_results
from diffcf_jax.run import run
from tests import tiny


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("networks")
    return {
        "method": {"name": "ac-re", "iterations": 3, "tau": 2, "threshold": 0.05, "unroll": False},
        "generator": {"checkpoint": tiny.save(folder / "ddpm", tiny.DDPM)},
        "regressor": {"checkpoint": tiny.save(folder / "regressor", tiny.REGRESSOR)},
        "oracle": {"checkpoint": ""},
        "data": {"name": "squares", "path": "", "limit": 3, "convert": False},
        "targets": "",
        "batch_size": 2,
        "seed": 0,
    }


def folder_of_images(path, count=3, size=64):
    path.mkdir()
    rng = np.random.default_rng(0)
    for i in range(count):
        pixels = rng.integers(0, 256, (size, size, 3), np.uint8)
        Image.fromarray(pixels).save(path / f"image{i}.png")
    return {"name": "folder", "path": str(path), "limit": None, "convert": False}


def test_squares_and_again(tmp_path, config):
    report, errors = run(tmp_path, **config)
    assert errors == [] and report.stat().st_size > 10_000
    rows = read_results(tmp_path)
    assert sorted(row["id"] for row in rows) == [0, 1, 2]
    for row in rows:
        assert Image.open(tmp_path / row["cf"]).size == (64, 64)
        assert row["target"] == pytest.approx(row["y_true"] + 128 / 255)
        assert row["success"] == (abs(row["y_final"] - row["target"]) <= 0.05)
        assert (row["reason"] is None) == row["success"]
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["n"] == 3 and summary["config"]["method"]["tau"] == 2
    # The same command again computes nothing, a longer one only what is new.
    before = (tmp_path / "results.jsonl").read_bytes()
    run(tmp_path, **config)
    assert (tmp_path / "results.jsonl").read_bytes() == before
    run(tmp_path, **{**config, "data": {**config["data"], "limit": 4}})
    after = (tmp_path / "results.jsonl").read_bytes()
    assert after.startswith(before) and len(read_results(tmp_path)) == 4


def test_folder_with_targets_and_a_bad_image(tmp_path, config):
    data = folder_of_images(tmp_path / "images")
    (tmp_path / "images" / "bad.png").write_bytes(b"no image")
    report, errors = run(
        tmp_path / "out", **{**config, "data": data, "targets": "0.2,0.8", "batch_size": 4}
    )
    assert len(errors) == 2 and all("bad.png" in error for error in errors)
    rows = read_results(tmp_path / "out")
    assert sum("error" in row for row in rows) == 2
    done = {(row["name"], row["target"]) for row in rows if "error" not in row}
    assert done == {(f"image{i}.png", target) for i in range(3) for target in (0.2, 0.8)}
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["errors"] == 2
    assert "bad.png" in report.read_text()


def test_data_csv_and_images_without_a_target(tmp_path, config):
    data = folder_of_images(tmp_path / "images")
    (tmp_path / "images" / "data.csv").write_text("name,target,y_true\nimage1.png,0.3,0.25\n")
    _, errors = run(tmp_path / "out", **{**config, "data": data})
    assert len(errors) == 2 and "give it one in data.csv" in errors[0]
    (row,) = (row for row in read_results(tmp_path / "out") if "error" not in row)
    assert (row["name"], row["target"], row["y_true"]) == ("image1.png", 0.3, 0.25)


def test_wrong_configs(tmp_path, config):
    regressor, generator = config["regressor"], config["generator"]
    for change, message in (
        ({"targets": "0.2,x"}, "config.targets has 'x'"),
        ({"batch_size": 0}, "config.batch_size=0"),
        ({"generator": {"checkpoint": "nowhere"}}, "config.generator.checkpoint: There is no"),
        ({"generator": regressor}, "needs a generator of kind ddpm"),
        ({"regressor": generator}, "config.regressor.checkpoint is a ddpm, not a regressor"),
        ({"data": {**config["data"], "name": "circles"}}, "config.data.name='circles'"),
        ({"data": {**config["data"], "limit": 0}}, "config.data.limit=0"),
        ({"data": {**config["data"], "path": str(tmp_path / "no")}}, "no"),
        ({"method": {**config["method"], "iteration": 3}}, "iteration"),
    ):
        with pytest.raises(UserError, match=message):
            run(tmp_path / "out", **{**config, **change})
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=str(tmp_path / "file")):
        run(tmp_path / "file" / "out", **config)


def test_parse_targets():
    assert parse_targets("") == []
    assert parse_targets("0.2, -3,1e2") == [0.2, -3.0, 100.0]
    assert parse_targets("(0.5)") == [0.5]
    for text in ("nan", "inf", "a", "0.1;0.2"):
        with pytest.raises(UserError, match="not a finite number"):
            parse_targets(text)
