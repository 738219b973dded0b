import json
import resource
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from diffcf_jax import ACRE, main
from diffcf_jax import run as run_module
from diffcf_jax.checkpoint.store import save_network
from diffcf_jax.counterfactual.events import Finished, Job
from diffcf_jax.counterfactual.types import Query
from diffcf_jax.data.squares import Squares
from diffcf_jax.errors import UserError
from diffcf_jax.results.log import read_results
from diffcf_jax.results.writer import ResultWriter
from diffcf_jax.run import run
from diffcf_jax.units import Unit
from diffcf_jax.workdir import locked
from eval.metrics.batch import batches
from eval.metrics.measure import measure
from eval.metrics.plan import Plan
from eval.metrics.regressor import validity
from tests import explaining, tiny
from tests.counterfactual import methods


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("networks")
    return {
        "method": {"name": "ac-re", "iterations": 3, "tau": 2, "threshold": 0.05},
        "generator": {"checkpoint": tiny.save(folder / "ddpm", tiny.DDPM)},
        "regressor": {"checkpoint": tiny.save(folder / "regressor", tiny.REGRESSOR)},
        "oracle": {"checkpoint": ""},
        "data": {"name": "squares", "path": "", "limit": 3, "convert": False},
        "targets": "",
        "batch_size": 2,
        "seed": 0,
    }


@pytest.fixture(scope="module", autouse=True)
def compiled_once():
    with explaining.compiled_once():
        yield


def folder_of_images(path, count=3, size=64):
    path.mkdir()
    rng = np.random.default_rng(0)
    for i in range(count):
        pixels = rng.integers(0, 256, (size, size, 3), np.uint8)
        Image.fromarray(pixels).save(path / f"image{i}.png")
    return {"name": "folder", "path": str(path), "limit": None, "convert": False}


def test_missing_answers_are_searched_again(tmp_path, config):
    config = {**config, "method": {**config["method"], "answers": 2}}
    run(tmp_path, **config)
    rows = {row["cf"]: row for row in read_results(tmp_path)}
    assert len(rows) == 6 and {row["answer"] for row in rows.values()} == {1, 2}
    lost = next(cf for cf, row in rows.items() if row["answer"] == 2)
    (tmp_path / lost).unlink()
    run(tmp_path, **config)
    again = {row["cf"]: row for row in read_results(tmp_path)}
    assert again.keys() == rows.keys() and (tmp_path / lost).exists()
    for cf, row in rows.items():
        for name in ("name", "answer", "target", "success", "iterations"):
            assert again[cf][name] == row[name]
        same = row["name"] == rows[lost]["name"] or again[cf] == row
        assert same and again[cf]["y_final"] == pytest.approx(row["y_final"], abs=1e-5)
    # A run that asks for one answer finds it there.
    run(tmp_path, **{**config, "method": {**config["method"], "answers": 1}})
    assert len(read_results(tmp_path)) == 6


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
    engine = summary["engine"]
    assert engine["images"] == 3 and 0 < engine["useful_fraction"] <= 1
    assert engine["images_per_second"] > 0 and engine["compile_seconds"] > 0
    assert engine["flop_utilisation"] is None  # nobody knows the peak of a CPU
    # The same command again computes nothing, a longer one only what is new.
    before = (tmp_path / "results.jsonl").read_bytes()
    run(tmp_path, **{**config, "batch_size": "1"})
    assert (tmp_path / "results.jsonl").read_bytes() == before
    assert json.loads((tmp_path / "summary.json").read_text())["engine"] == engine
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


def test_ranges_and_masks_on_disk(tmp_path, config):
    data = folder_of_images(tmp_path / "images", count=2)
    for i in range(2):
        mask = np.zeros((64, 64), np.uint8)
        mask[8:40, 4 + i : 30] = 255
        (tmp_path / "masks").mkdir(exist_ok=True)
        Image.fromarray(mask).save(tmp_path / "masks" / f"image{i}.bmp")
    (tmp_path / "images" / "other.png").write_bytes((tmp_path / "images/image0.png").read_bytes())
    data |= {"masks": str(tmp_path / "masks"), "mask_control": ""}
    asked = {**config, "data": data, "targets": "max,-2..-1,0.4", "batch_size": 2}
    report, errors = run(tmp_path / "out", **asked)
    assert len(errors) == 3 and all("other.png has no mask" in error for error in errors)
    rows = [row for row in read_results(tmp_path / "out") if "error" not in row]
    assert {row["target"] for row in rows} == {"max", "-2..-1", 0.4} and len(rows) == 6
    for row in rows:
        mask = np.asarray(Image.open(tmp_path / "masks" / row["name"].replace("png", "bmp"))) > 127
        before, after = (np.asarray(Image.open(tmp_path / "out" / row[k])) for k in ("input", "cf"))
        np.testing.assert_array_equal(before[~mask], after[~mask])
        np.testing.assert_array_equal(Image.open(tmp_path / "out" / row["mask"]), mask * 255)
        assert row["target"] == 0.4 or not row["success"] and row["reason"]
    assert (tmp_path / "out" / "cf" / "image0_target_-2..-1.png").is_file()
    assert any((row["cf"] != row["input"]) and row["pixel_change"] > 0 for row in rows)
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["metrics"]["success_rate"]["n"] == 4  # an extreme is no success or failure
    assert "-2..-1" in report.read_text() and '"target":"max"' in report.read_text()
    measured = measure(
        batches(tmp_path / "out", rows, masks=False),
        lambda images: np.full(len(images), -1.5, np.float32),
        Plan([validity(0.05)]),
    )
    by_target = dict(
        zip((row["target"] for row in rows), measured.values["final_error"], strict=True)
    )
    assert by_target["-2..-1"] == 0 and np.isnan(by_target["max"])
    assert by_target[0.4] == pytest.approx(1.9)
    before = (tmp_path / "out" / "results.jsonl").read_bytes()
    (tmp_path / "images" / "other.png").unlink()
    run(tmp_path / "out", **asked)  # all of it is there
    lines = (tmp_path / "out" / "results.jsonl").read_bytes().splitlines()
    assert set(lines) <= set(before.splitlines()) and len(lines) == 6


def test_another_config_is_refused_in_the_same_folder(tmp_path, config):
    run(tmp_path, **config)
    before = (tmp_path / "results.jsonl").read_bytes()
    other = {**config, "seed": 5, "method": {**config["method"], "tau": 1}}
    with pytest.raises(UserError, match=r"method\.tau \(2 there, 1 here\); seed \(0 there, 5 here"):
        run(tmp_path, **other)
    with pytest.raises(UserError, match="targets"):
        run(tmp_path, **{**config, "targets": "0.5"})
    network = tiny.save(tmp_path / "network", tiny.REGRESSOR, seed=1)
    with pytest.raises(UserError, match=r"networks\.regressor"):
        run(tmp_path, **{**config, "regressor": {"checkpoint": network}})
    (tmp_path / "cf" / "mine.png").write_bytes(b"not of this run")
    measured = [tmp_path / "metrics.json", tmp_path / "metrics.csv"]
    for path in measured:
        path.write_text("of the results that go")
    assert (tmp_path / "results.jsonl").read_bytes() == before

    data = {**config["data"], "limit": 1}
    run(tmp_path, **{**other, "data": data}, from_scratch=True)
    (row,) = read_results(tmp_path)
    assert row["id"] == 0
    pictures = {path.name for path in (tmp_path / "cf").iterdir()}
    assert pictures == {"lower_000.png", "mine.png"}
    assert not any(path.exists() for path in measured)

    log = tmp_path / "results.jsonl"
    log.write_bytes(b"broken\n" + log.read_bytes())
    with pytest.raises(UserError, match=r"results\.jsonl line 1 is broken"):
        run(tmp_path, **other)
    run(tmp_path, **{**other, "data": data, "targets": "0.9"}, from_scratch=True)
    (row,) = read_results(tmp_path)  # the broken line does not keep the others' images
    assert {path.name for path in (tmp_path / "cf").iterdir()} == {"lower_000.png", "mine.png"}
    (tmp_path / "config.json").unlink()
    with pytest.raises(UserError, match=r"holds results, but no config\.json"):
        run(tmp_path, **config)


def test_one_run_at_a_time(tmp_path, config):
    with (
        locked(tmp_path),
        pytest.raises(UserError, match="Another run works in"),
    ):
        run(tmp_path, **config)


def test_a_full_disk_stops_the_run_and_a_rerun_goes_on(tmp_path, config):
    config = {**config, "data": {**config["data"], "limit": 40}}
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (13_000, old[1]))  # the log grows out of it
    try:
        with pytest.raises(UserError, match=r"cannot write .*free some space"):
            run(tmp_path, **config)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    before = read_results(tmp_path)
    assert 0 < len(before) < 40
    run(tmp_path, **config)
    rows = read_results(tmp_path)
    assert rows[: len(before)] == before
    assert sorted(row["id"] for row in rows) == list(range(40))


def test_a_folder_that_vanishes_and_comes_back(tmp_path, config, monkeypatch):
    data = folder_of_images(tmp_path / "images", 8)
    config = {**config, "data": data, "targets": "0.5", "batch_size": 1}
    save = ResultWriter.save

    def save_and_move(*arguments):
        save(*arguments)
        if (tmp_path / "images").exists():
            (tmp_path / "images").rename(tmp_path / "gone")

    monkeypatch.setattr(ResultWriter, "save", save_and_move)
    _, errors = run(tmp_path / "out", **config)
    assert 0 < len(errors) < 8 and all("image" in error for error in errors)
    (tmp_path / "gone").rename(tmp_path / "images")
    monkeypatch.undo()
    _, errors = run(tmp_path / "out", **config)
    assert errors == []
    assert sorted(row["id"] for row in read_results(tmp_path / "out")) == list(range(8))


def test_a_prediction_that_is_not_finite(tmp_path, config):
    broken = tiny.variables(tiny.REGRESSOR)
    broken = jax.tree.map(lambda leaf: jnp.full_like(leaf, 1e30), broken)
    save_network(tmp_path / "regressor", tiny.REGRESSOR, broken)
    regressor = {"checkpoint": str(tmp_path / "regressor")}
    _, errors = run(tmp_path / "out", **{**config, "regressor": regressor})
    assert len(errors) == 3 and all("not finite" in error for error in errors)


def test_a_reconstruction_that_is_not_finite(tmp_path):
    record = Squares("validation")[0]
    image = jnp.full(record.image.shape, 0.5)
    found = methods.Counting().init({}, Query.of(image, 0.5), None).result
    found = jax.device_get(found.replace(reconstruction=image.at[0, 0, 0].set(jnp.nan)))
    finished = Finished(Job(0, image, 0.5, record), found, 1.0)
    with ResultWriter(tmp_path, [record.name]) as writer:
        run_module._saver(writer, SimpleNamespace(unit=Unit(), method=ACRE()), {})(finished)
    (row,) = read_results(tmp_path)
    assert "not finite" in row["error"]


def test_data_csv_and_images_without_a_target(tmp_path, config):
    data = folder_of_images(tmp_path / "images")
    (tmp_path / "images" / "data.csv").write_text("name,target,y_true\nimage1.png,0.3,0.25\n")
    _, errors = run(tmp_path / "out", **{**config, "data": data})
    assert len(errors) == 2 and "give it one in data.csv" in errors[0]
    (row,) = (row for row in read_results(tmp_path / "out") if "error" not in row)
    assert (row["name"], row["target"], row["y_true"]) == ("image1.png", 0.3, 0.25)
    # A target that was changed is another result.
    (tmp_path / "images" / "data.csv").write_text("name,target\nimage1.png,0.4\n")
    run(tmp_path / "out", **{**config, "data": data})
    rows = [row for row in read_results(tmp_path / "out") if "error" not in row]
    assert [row["target"] for row in rows] == [0.3, 0.4]
    assert rows[0]["cf"] != rows[1]["cf"]


def test_a_folder_in_which_nothing_was_explained_takes_another_config(tmp_path, config):
    data = folder_of_images(tmp_path / "images")
    _, errors = run(tmp_path / "out", **{**config, "data": data})
    assert len(errors) == 3 and "pass --config.targets=NUMBER" in errors[0]
    _, errors = run(tmp_path / "out", **{**config, "data": data, "targets": "0.5"})
    assert errors == []


def test_a_workdir_among_the_images_is_refused(tmp_path, config):
    data = folder_of_images(tmp_path / "images")
    workdir = tmp_path / "images" / "out"
    with pytest.raises(UserError, match=r"out lies in config\.data\.path"):
        run(workdir, **{**config, "data": data})
    assert not workdir.exists()


def test_wrong_configs(tmp_path, config):
    regressor, generator = config["regressor"], config["generator"]
    for change, message in (
        ({"targets": "0.2,x"}, "config.targets has 'x'"),
        ({"batch_size": 0}, "batch_size=0 must be a whole number of at least 1, or auto"),
        ({"seed": 10**20}, "seed=1.* must be a whole number between 0 and 4294967295"),
        ({"generator": {"checkpoint": "nowhere"}}, "config.generator.checkpoint: There is no"),
        ({"generator": regressor}, "needs a generator of kind ddpm"),
        ({"regressor": generator}, "config.regressor.checkpoint is a ddpm, not a regressor"),
        ({"data": {**config["data"], "name": "circles"}}, "config.data.name='circles'"),
        ({"data": {**config["data"], "limit": 0}}, "config.data.limit=0"),
        ({"data": {**config["data"], "path": str(tmp_path / "no")}}, "no"),
        (
            {"method": {**config["method"], "iteration": 3}},
            r"config\.method\.iteration is no option of ac-re: did you mean iterations",
        ),
        (
            {"method": {**config["method"], "tau": 60}},
            r"config\.method\.tau=60 must lie between 1 and 50",
        ),
        ({"targets": "1_0"}, "config.targets has '1_0'"),
        ({"targets": "1e39"}, "config.targets has '1e39', which is not a finite number in float32"),
    ):
        with pytest.raises(UserError, match=message):
            run(tmp_path / "out", **{**config, **change})
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=str(tmp_path / "file")):
        run(tmp_path / "file" / "out", **config)


def test_values_are_in_the_configs_unit(tmp_path, config):
    years = {**config["regressor"], "unit": "years", "mean": 0.0, "scale": 100.0}
    method = {**config["method"], "threshold": 5.0}
    config = {**config, "data": {**config["data"], "limit": 1}, "targets": "60"}
    report, _ = run(tmp_path / "years", **{**config, "method": method, "regressor": years})
    run(tmp_path / "plain", **{**config, "targets": "0.6"})
    (row,), (plain,) = (read_results(tmp_path / name) for name in ("years", "plain"))
    assert (row["unit"], row["target"], plain["unit"]) == ("years", 60.0, None)
    # The same run, told in another unit
    for key in ("y_initial", "y_final"):
        assert row[key] == pytest.approx(100 * plain[key], rel=1e-5)
    assert row["curve"] == pytest.approx([100 * y for y in plain["curve"]], rel=1e-5)
    assert row["success"] == plain["success"] and row["iterations"] == plain["iterations"]
    if row["success"]:
        assert row["reason"] is None and abs(row["y_final"] - 60) <= 5
    else:
        assert "misses the target by more than 5 years after" in row["reason"]
    summary = json.loads((tmp_path / "years" / "summary.json").read_text())
    assert summary["metrics"]["final_error"]["unit"] == "years"
    assert '"unit":"years"' in report.read_text()


def test_a_method_with_two_generators_goes_on_where_it_stopped(tmp_path, capsys):
    flags = explaining.save_networks(tmp_path, "hybrid")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    explaining.explain(whole, *flags, "--config.data.limit=3")
    for limit in (1, 3):
        explaining.explain(parts, *flags, f"--config.data.limit={limit}")
    rows = [sorted(read_results(out), key=lambda row: row["id"]) for out in (whole, parts)]
    for row, other in zip(*rows, strict=True):
        assert (row["y_final"], row["iterations"]) == (other["y_final"], other["iterations"])
        assert (whole / row["cf"]).read_bytes() == (parts / other["cf"]).read_bytes()
    assert "<title>Hybrid" in (whole / "report.html").read_text("utf-8")
    for flag, message in (
        ("generator.checkpoint=nowhere", "config.generator.checkpoint: "),
        ("refiner.checkpoint=nowhere", "config.refiner.checkpoint: "),
        ("method.share=2", "config.method.share=2.0 must be a number from 0 to 1"),
    ):
        arguments = [f"--workdir={whole}", *flags, f"--config.{flag}"]
        assert main.explain(arguments) == 2
        assert message in capsys.readouterr().err
