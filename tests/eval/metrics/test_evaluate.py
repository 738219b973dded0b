"""Metrics on hand-made images with known answers, and on tiny networks."""

import dataclasses
import itertools
import json
import subprocess
import sys
import types
from pathlib import Path

import jax
import numpy as np
import pytest

from diffcf_jax.checkpoint.network import build_module
from diffcf_jax.data.record import Record
from diffcf_jax.data.squares import Squares, inner_mask
from diffcf_jax.errors import UserError
from diffcf_jax.files import encode_png, read_image
from diffcf_jax.results.log import read_results
from diffcf_jax.results.summary import summarise, write_summary
from diffcf_jax.results.writer import ResultWriter
from eval.metrics.batch import BATCH_SIZE, batches
from eval.metrics.compare import compare, format_comparison, format_means, side_by_side
from eval.metrics.evaluate import evaluate, format_table
from eval.metrics.measure import measure
from eval.metrics.plan import Plan
from eval.metrics.regressor import load_judge, oracle, validity
from eval.metrics.squares import squares
from tests import tiny
from tests.eval.metrics.test_squares import painted


def save_tiny(folder, seed, **description):
    description = {**tiny.REGRESSOR, "unit": None, "mean": 0.0, "scale": 1.0, **description}
    tiny.save(folder, description, seed)
    apply, variables = jax.jit(build_module(description).apply), tiny.variables(description, seed)
    return lambda images: np.asarray(apply(variables, np.asarray(images, np.float32)))


def write_run(folder, pairs, config, answer=1, allowed=None):
    """Saves (record, counterfactual image) pairs as explain.py does."""
    with ResultWriter(folder, [record.name for record, _ in pairs]) as writer:
        for record, image in pairs:
            counterfactual = types.SimpleNamespace(
                **{"image": image, "reconstruction": image, "success": True, "iterations": 7},
                codes=None,
                **{"y_initial": 0.0, "y_reconstruction": 0.0, "y_final": 0.5, "curve": [0.5]},
            )
            writer.save(record, record.target, counterfactual, 1.0, answer=answer, allowed=allowed)
    rows = read_results(folder)
    write_summary(folder, summarise(rows, config, 1.0, {}))
    return rows


def test_measure_reads_the_saved_files(tmp_path):
    mask = inner_mask(0, 0)
    pairs = [
        (
            Record(i, f"{i}.png", painted(mask, [0, 0, 0], 3 * [10]), y=0.0, target=0.4, mask=mask),
            (painted(mask, [102 + i, 0, 0], 3 * [10 + i % 2]) / 255).astype(np.float32),
        )
        for i in range(BATCH_SIZE + 6)  # more than one batch, the last one not full
    ]
    rows = write_run(tmp_path, pairs, {})

    def read_red(images):
        assert 1 <= len(images) <= BATCH_SIZE
        return images[:, 4, 4, 0]

    plan = Plan([squares, validity(0.05), oracle("oracle", lambda x: read_red(x) + 0.01, 0.05)])
    found = measure(batches(tmp_path, rows, masks=True), read_red, plan)
    y, values = found.y, found.values
    i = np.arange(len(pairs))
    assert values["square_mae"] == pytest.approx(i / 255, abs=1e-7)
    assert values["background_mae"] == pytest.approx(i % 2 / 255, abs=1e-7)
    assert values["background_mae_per_pixel"] == pytest.approx(i % 2 / 255, abs=1e-7)
    assert values["final_error"] == pytest.approx(i / 255, abs=1e-6)
    assert list(values["success_rate"]) == [k <= 12 for k in i]  # 12 / 255 < 0.05 < 13 / 255
    assert values["oracle_mae"] == pytest.approx(np.full(len(i), 0.01), abs=1e-6)
    assert values["oracle_error"] == pytest.approx(i / 255 + 0.01, abs=1e-6)
    assert list(values["oracle_success_rate"]) == [k <= 10 for k in i]
    assert values["oracle_direction"].all() and values["oracle_follows"].all()
    assert y == pytest.approx((102 + i) / 255, abs=1e-6) and found.sets == {}


def test_evaluate_with_networks(tmp_path):
    regressor = save_tiny(tmp_path / "regressor", 0)
    oracle = save_tiny(tmp_path / "oracle", 1, mean=0.5, scale=2.0)
    data = Squares("validation", limit=3)
    pairs = [(data[i], data[(i + 1) % 3].image.astype(np.float32) / 255) for i in range(3)]
    config = {
        "method": {"threshold": 0.05},
        "regressor": {"checkpoint": str(tmp_path / "regressor")},
    }
    out = tmp_path / "out"
    rows = write_run(out, pairs, config)
    with ResultWriter(out, data.names) as writer:
        writer.save_error(9, "x.png", None, "cannot read x.png")

    summary = evaluate(out)
    assert (summary["n"], summary["errors"], summary["oracle"]) == (3, 1, None)
    assert "oracle_mae" not in summary["metrics"] and "square_mae" in summary["metrics"]
    assert summary["metrics"]["iterations"]["mean"] == 7

    summary = evaluate(out, oracle=tmp_path / "oracle")
    images = np.stack([read_image(out / row["cf"]) for row in rows]) / 255
    y, y_oracle = regressor(images), 0.5 + 2.0 * oracle(images)
    target = np.array([row["target"] for row in rows])
    means = {name: interval["mean"] for name, interval in summary["metrics"].items()}
    assert means["final_error"] == pytest.approx(np.abs(y - target).mean(), abs=1e-5)
    assert means["oracle_mae"] == pytest.approx(np.abs(y_oracle - y).mean(), abs=1e-5)
    assert means["oracle_error"] == pytest.approx(np.abs(y_oracle - target).mean(), abs=1e-5)
    assert json.loads((out / "metrics.json").read_text()) == summary
    assert (out / "metrics.csv").read_text().startswith("metric,mean,low,high,n,unit\nsquare")
    assert "oracle_success_rate" in format_table(summary["metrics"])


def test_the_full_suite_has_a_control(tmp_path):
    """The control meets the target by pixels alone, and every metric stands beside its own."""
    tiny.save(tmp_path / "regressor", {**tiny.REGRESSOR, "unit": None, "mean": 0.0, "scale": 1.0})
    data = Squares("validation", limit=6)
    judge = load_judge(tmp_path / "regressor")
    y = judge(np.stack([record.image for record in data], dtype=np.float32) / 255)
    records = [
        dataclasses.replace(record, target=float(value) + 0.004 * (1 + i % 2))
        for i, (record, value) in enumerate(zip(data, y, strict=True))
    ]
    pairs = [
        (record, data[(i + 1) % 6].image / np.float32(255)) for i, record in enumerate(records)
    ]
    config = {
        "method": {"threshold": 0.001},
        "regressor": {"checkpoint": str(tmp_path / "regressor")},
    }
    write_run(tmp_path / "out", pairs, config)
    summary = evaluate(tmp_path / "out", suite="full")
    metrics, control = summary["metrics"], summary["control"]
    assert control["success_rate"]["mean"] == 1 > metrics["success_rate"]["mean"]
    assert control["l1"]["mean"] < metrics["l1"]["mean"] / 10
    assert set(control) == set(metrics) and 0 < control["iterations"]["mean"] <= 7
    expected = {"fd_regressor", "kd_regressor", "coverage_regressor", "slope", "r2", "cout", "ssim"}
    assert expected <= set(metrics)
    assert -1 <= metrics["cout"]["mean"] <= 1 and metrics["success_jpeg"]["n"] == 6
    assert metrics["slope"]["low"] is None  # of the whole set
    line = format_table(metrics, control).splitlines()[1]
    assert line.split()[0] == "square_mae" and len(line.split()) == 7

    # The same run again, and a run whose images are the originals themselves.
    same = [(record, record.image / np.float32(255)) for record in records]
    write_run(tmp_path / "other", same, config)
    evaluate(tmp_path / "other")
    rows = {row["metric"]: row for row in compare([tmp_path / "out", tmp_path / "other"])}
    assert rows["l1"]["mean"] == pytest.approx(-metrics["l1"]["mean"], rel=1e-5)
    assert rows["l1"]["p"] == pytest.approx(2 / 2**6) and rows["l1"]["p_holm"] > rows["l1"]["p"]
    assert rows["iterations"]["p"] == 1 and "cout" not in rows
    assert "l1 ↓" in format_comparison(list(rows.values()))
    columns = side_by_side([tmp_path / "out", tmp_path / "other"])
    assert list(columns) == [str(tmp_path / name) for name in ("out", "out (attack)", "other")]
    table = format_means(columns).splitlines()
    assert len(table) == 2 + len(metrics) and len({line.count("|") for line in table}) == 1
    (line,) = (line for line in table if line.startswith("| fd_regressor ↓"))
    assert float(line.split("|")[2]) == pytest.approx(metrics["fd_regressor"]["mean"], rel=0.01)
    assert line.split("|")[4].strip() == "-"  # measured with the suite "paper"
    with pytest.raises(UserError, match=r"nowhere/metrics.json is missing: run .*"):
        side_by_side([tmp_path / "nowhere"])
    with pytest.raises(UserError, match=r"nowhere/metrics_of_results.csv is missing: run .*"):
        compare([tmp_path / "out", tmp_path / "nowhere"])
    (tmp_path / "other" / "metrics_of_results.csv").write_text("name,target,answer,l1\na,0.5,1,x\n")
    with pytest.raises(UserError, match=r"metrics_of_results.csv is broken: run .* again"):
        compare([tmp_path / "out", tmp_path / "other"])


def test_the_control_has_sweeps_and_answers(tmp_path):
    """Noise follows the targets, too: only an oracle and the path tell it from a change."""
    tiny.save(tmp_path / "regressor", {**tiny.REGRESSOR, "unit": None, "mean": 0.0, "scale": 1.0})
    tiny.save(tmp_path / "oracle", {**tiny.REGRESSOR, "unit": None, "mean": 0.0, "scale": 1.0}, 1)
    image = Squares("validation", limit=1).images[0]
    y = float(load_judge(tmp_path / "regressor")(image[None] / np.float32(255))[0])
    rng = np.random.default_rng(0)
    for answer, step in itertools.product((1, 2), (0.004, 0.008, 0.012)):
        record = Record(0, "a.png", image, target=y + step)
        pair = record, rng.random(image.shape, np.float32)
        write_run(tmp_path / "out", [pair], config_of(tmp_path), answer)
    summary = evaluate(tmp_path / "out", oracle=tmp_path / "oracle", suite="full")
    metrics, control = summary["metrics"], summary["control"]
    assert set(control) == set(metrics)
    for name in ("kendall_tau", "oracle_kendall_tau", "path_length", "path_curvature"):
        assert control[name]["n"] == metrics[name]["n"] == 2, name
    assert control["kendall_tau"]["mean"] == 1 and control["success_rate"]["mean"] == 1
    assert control["path_length"]["mean"] < metrics["path_length"]["mean"]
    # Noise of up to 4/255 in each of two answers
    assert control["diversity"]["n"] == 3
    assert 0 < control["diversity"]["mean"] < 8 / 255 < metrics["diversity"]["mean"]


def config_of(folder):
    return {"method": {"threshold": 0.001}, "regressor": {"checkpoint": str(folder / "regressor")}}


def test_errors_are_in_the_unit_of_the_run(tmp_path):
    regressor = save_tiny(tmp_path / "regressor", 0)
    oracle = save_tiny(tmp_path / "oracle", 1, unit="years", scale=100.0)
    image = Squares("validation", limit=1).images[0]
    pairs = [(Record(0, "a.png", image, target=40.0), image.astype(np.float32) / 255)]
    years = {"unit": "years", "scale": 100.0}
    config = {
        "method": {"threshold": 5.0},
        "regressor": {"checkpoint": str(tmp_path / "regressor"), **years},
        "oracle": {"checkpoint": str(tmp_path / "oracle"), **years},
    }
    write_run(tmp_path / "out", pairs, config)
    summary = evaluate(tmp_path / "out")
    y, y_oracle = (100 * network(image[None] / 255)[0] for network in (regressor, oracle))
    assert summary["unit"] == "years" and summary["threshold"] == 5.0
    for name, value in (("final_error", y - 40), ("oracle_mae", y_oracle - y)):
        metric = summary["metrics"][name]
        assert metric["mean"] == pytest.approx(abs(value), abs=1e-3)
        assert metric["unit"] == "years"
    assert "unit" not in summary["metrics"]["success_rate"]
    (line,) = (s for s in format_table(summary["metrics"]).splitlines() if "final_error" in s)
    assert line.endswith(" years")
    assert (tmp_path / "out" / "metrics.csv").read_text().count(",years\n") == 3


def test_several_answers_have_a_diversity(tmp_path):
    save_tiny(tmp_path / "regressor", 0)
    config = {
        "method": {"threshold": 0.05},
        "regressor": {"checkpoint": str(tmp_path / "regressor")},
    }
    image = Squares("validation", limit=1).images[0]
    record = Record(0, "a.png", image, target=0.4)
    write_run(tmp_path / "out", [(record, image.astype(np.float32) / 255)], config)
    write_run(tmp_path / "out", [(record, np.zeros(image.shape, "f4"))], config, answer=2)
    summary = evaluate(tmp_path / "out")
    assert summary["n"] == summary["metrics"]["iterations"]["n"] == 2
    assert summary["metrics"]["diversity"]["n"] == 1
    assert summary["metrics"]["diversity"]["mean"] == pytest.approx(image.mean() / 255)


def test_networks_in_a_folder_add_their_metrics(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (2, 2, 32, 32, 3), np.uint8)
    pairs = [
        (Record(i, f"{i}.png", x, target=0.5), y.astype(np.float32) / 255)
        for i, (x, y) in enumerate(zip(*images, strict=True))
    ]
    write_run(tmp_path / "out", pairs, {"method": {"threshold": 0.05}})
    tiny.save(tmp_path / "regressor", {**tiny.REGRESSOR, "image_size": 32})
    for name, kind in (("inception", "inception"), ("lpips", "lpips"), ("lpips_vgg", "lpips")):
        model = {"width": 4} | ({"backbone": "vgg"} if name == "lpips_vgg" else {})
        tiny.save(tmp_path / "nets" / name, {"kind": kind, "model": model, "image_size": 299})
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "a.png").write_bytes(encode_png(images[1][0]))
    summary = evaluate(
        tmp_path / "out", tmp_path / "regressor",
        weights=tmp_path / "nets", train=tmp_path / "train",
    )  # fmt: skip
    metrics = summary["metrics"]
    assert metrics["train_l2"]["mean"] < metrics["train_l2_input"]["mean"]
    assert metrics["train_l2_share"]["mean"] > 0 and "train_dlib" not in metrics
    assert metrics["fid"]["mean"] > 0 and metrics["fid"]["low"] is None
    assert metrics["lpips"]["n"] == 2 and metrics["lpips"]["mean"] != 0
    assert not {"sfid", "fid_inception", "lpips_vgg", "cmmd"} & set(metrics)  # of the full suite
    assert set(summary["not_computed"]) == {
        "fs", "fva", "identity_distance_dlib", "same_person_dlib", "mnac", "mnac_originals",
    }  # fmt: skip


def test_other_images_have_no_square_metrics(tmp_path):
    image = np.zeros((4, 4, 3), np.uint8)
    pairs = [(Record(0, "a.jpg", image, target=0.5), image.astype(np.float32))]
    write_run(tmp_path / "out", pairs, {"method": {"threshold": 0.05}})
    tiny.save(tmp_path / "regressor", {**tiny.REGRESSOR, "image_size": 4})
    summary = evaluate(tmp_path / "out", tmp_path / "regressor")
    assert not any("square" in name or "background" in name for name in summary["metrics"])
    assert "fs" in summary["not_computed"]


def test_user_errors(tmp_path):
    image = np.zeros((4, 4, 3), np.uint8)
    pairs = [(Record(0, "a.jpg", image, target=0.5), image.astype(np.float32))]
    write_run(tmp_path / "a", pairs, {"method": {"threshold": 0.05}})
    with pytest.raises(UserError, match=r"names no regressor\.checkpoint: give --regressor"):
        evaluate(tmp_path / "a")
    with pytest.raises(UserError, match=r"no network at .*/nowhere"):
        evaluate(tmp_path / "a", regressor=tmp_path / "nowhere")
    save_tiny(tmp_path / "regressor", 0)
    with pytest.raises(UserError, match=r"takes images of 64x64 pixels, and these have 4x4"):
        evaluate(tmp_path / "a", regressor=tmp_path / "regressor")
    (tmp_path / "a" / "cf" / "a.png").unlink()
    with pytest.raises(UserError, match=r"cannot read .*cf/a\.png"):
        evaluate(tmp_path / "a", regressor=tmp_path / "regressor")
    write_run(tmp_path / "none", [], {"method": {"threshold": 0.05}})
    with pytest.raises(UserError, match="holds no counterfactual"):
        evaluate(tmp_path / "none")
    tiny.save(tmp_path / "other", tiny.DDPM)
    with pytest.raises(UserError, match='holds a "ddpm", not a regressor'):
        load_judge(tmp_path / "other")


def test_what_cannot_be_measured_is_left_out_and_named(tmp_path):
    image = np.zeros((64, 64, 3), np.uint8)
    pairs = [(Record(i, f"{i}.png", image, target=0.5), image.astype(np.float32)) for i in range(5)]
    out = tmp_path / "out"
    write_run(out, pairs, {"method": {"threshold": 0.05}})
    (out / "cf" / "0.png").write_bytes(encode_png(image)[:-20])
    (out / "cf" / "1.png").write_bytes(encode_png(image[:32, :32]))
    (out / "input" / "2.png").unlink()
    log = out / "results.jsonl"
    log.write_text('{"id": 9}\n' + log.read_text())
    save_tiny(tmp_path / "regressor", 0)
    save_tiny(tmp_path / "oracle", 1, image_size=32)
    found = evaluate(out, tmp_path / "regressor", tmp_path / "oracle")
    assert found["n"] == found["metrics"]["l1"]["n"] == 2 and found["errors"] == 0
    for sentence, part in zip(
        found["left_out"],
        (
            "results.jsonl line 1 is broken",
            "cf/0.png",
            "cf/1.png is not of its input's size",
            "input/2.png",
            "images of 32x32",
        ),
        strict=True,
    ):
        assert part in sentence
    assert "oracle_mae" not in found["metrics"]


def test_images_from_outside_are_not_measured(tmp_path):
    image = np.zeros((4, 4, 3), np.uint8)
    pairs = [(Record(0, "a.jpg", image, target=0.5), image.astype(np.float32))]
    (row,) = write_run(tmp_path / "out", pairs, {})
    with pytest.raises(UserError, match=r"\.\./a\.png. leads out of .*out"):
        next(batches(tmp_path / "out", [{**row, "cf": "../a.png"}], masks=False))


def test_command_line_ends_with_status_2_and_one_sentence(tmp_path):
    command = [sys.executable, "-m", "eval.metrics", "--results", str(tmp_path / "nowhere")]
    root = Path(__file__).parents[3]
    run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=root)
    assert run.returncode == 2 and run.stdout == ""
    assert run.stderr.startswith("error: cannot read ") and run.stderr.count("\n") == 1
