"""The commands from the outside, on tiny networks: train, explain, measure, fail."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from diffcf_jax import cli
from diffcf_jax.data import squares
from diffcf_jax.files import encode_png
from diffcf_jax.main import main

ROOT = Path(__file__).resolve().parents[1]
UNET = "config.network.model"
SHORT = [
    "--config.steps=2",
    "--config.batch_size=4",
    "--config.optimizer.warmup_steps=1",
    "--config.log_every=1",
]
COMMANDS = {
    "ddpm": [f"--{UNET}.channels=32", f"--{UNET}.channel_mult=(1,)", f"--{UNET}.patch_size=8"],
    "regressor": [f"--{UNET}.width=4", f"--{UNET}.blocks=(1,)"],
    "oracle": [f"--{UNET}.width=4", f"--{UNET}.blocks=(1,)"],
}


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "keep_memory", lambda: None)  # of this process, which goes on
        patch.setattr(squares, "TRAIN_SIZE", 64)
        for name, arguments in COMMANDS.items():
            config = f"--config=train/squares_{name}"
            assert main(["train", config, f"--workdir={folder / name}", *arguments, *SHORT]) == 0
            assert (folder / name / "network" / "network.json").is_file()
    assert list((folder / "ddpm" / "pictures").glob("*.png"))
    assert "Total: " in (folder / "ddpm" / "parameters.txt").read_text()
    assert list((folder / "ddpm" / "tensorboard").iterdir())
    return folder


def explain(networks, out, *arguments):
    roles = {"generator": "ddpm", "regressor": "regressor", "oracle": "oracle"}
    checkpoints = [
        f"--config.{role}.checkpoint={networks / name / 'network'}" for role, name in roles.items()
    ]
    return main([
        "explain", f"--config={ROOT}/configs/squares_acre.py", f"--workdir={out}", *checkpoints,
        "--config.data.limit=2", "--config.method.iterations=2", "--config.method.tau=1",
        "--config.batch_size=2", *arguments,
    ])  # fmt: skip


def test_train_explain_measure(networks, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert explain(networks, "~/out") == 0
    told = capsys.readouterr()
    out = tmp_path / "out"
    assert f"The report is {out / 'report.html'}" in told.out
    assert not Path("~").exists()
    assert "2/2" in told.err and "|y-target|" in told.err  # the progress bar
    rows = [json.loads(line) for line in (out / "results.jsonl").open()]
    assert {row["name"] for row in rows} == {"lower_000.png", "lower_001.png"}

    monkeypatch.setattr(cli, "keep_memory", lambda: None)  # of this process, which goes on
    assert main(["evaluate", "--results=out"]) == 0
    table = capsys.readouterr().out
    assert "square_mae" in table and "oracle_mae" in table
    metrics = json.loads((out / "metrics.json").read_text())["metrics"]
    assert {"square_mae", "background_mae", "success_rate", "oracle_mae"} <= set(metrics)
    assert metrics["success_rate"]["mean"] == sum(row["success"] for row in rows) / 2


def test_a_bad_image_among_good_ones(networks, tmp_path, capsys):
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "bad.png").write_bytes(b"no image")
    (folder / "good.png").write_bytes(encode_png(squares.Squares("validation", 1)[0].image))
    arguments = [f"--config.data.path={folder}", "--config.targets=0.5"]
    assert explain(networks, tmp_path / "out", *arguments) == 2
    told = capsys.readouterr()
    assert "bad.png" in told.err.splitlines()[-1]
    assert "report.html" in told.out and (tmp_path / "out/cf/good.png").is_file()


@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        ("explain", ["--config.method.taus=3"], "no such key: taus. Did you mean 'tau' instead"),
        ("explain", ["--config.batch_size=many"], "batch_size=many must be .* auto"),
        ("explain", ["--compile_only", "--topology=h100:8"], "Unknown TPU generation"),
        ("explain", ["--config.generator.checkpoint=nowhere"], "no network at /.*/nowhere"),
        ("explain", ["--workdir="], "diffcf explain needs --workdir: the folder for results"),
        ("train", ["--config=none.py"], "--config=none.py: there is no file none.py in /"),
        ("train", ["--config=train/squares_paper"], "py: unknown network '': use sq"),
        ("train", ["--config=train/ddpm:huge"], "py:huge: unknown size 'huge': use"),
        ("train", ["--config=train/squares_ddpm.py:x"], "py:x: get_config.. takes 0 "),
        ("train", ["--config=train/latent_dpm:tiny"], "config.objective.diffae: "),
    ],
)
def test_errors_are_one_sentence(tmp_path, monkeypatch, capsys, command, arguments, message):
    monkeypatch.setattr(cli, "keep_memory", lambda: None)
    config = "--config=squares_acre"
    assert main([command, config, f"--workdir={tmp_path}", *arguments]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ")
    assert re.search(message, line), line


@pytest.mark.parametrize(
    "script", ["explain.py", "train.py", "-m eval.metrics", "-m diffcf_jax.main explain"]
)
def test_the_scripts_of_a_clone(script):
    done = subprocess.run(
        [sys.executable, *script.split()], cwd=ROOT, capture_output=True, text=True
    )
    typed = "diffcf explain" if "main" in script else f"python {script}"
    assert done.returncode == 2
    assert re.fullmatch(
        rf"error: {typed} needs (--\w+|OUT).*: {typed} --help shows the .*\n", done.stderr
    )
