"""The commands of the README from the outside, on tiny networks: train, explain, measure, fail."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from diffcf_jax.data.squares import Squares
from diffcf_jax.files import encode_png

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


def command(*arguments, ok=True):
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".pytest_cache/xla")}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert (done.returncode == 0) == ok, done.stderr
    return done


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for name, arguments in COMMANDS.items():
        config = f"--config=configs/train/squares_{name}.py"
        done = command("train.py", config, f"--workdir={folder / name}", *arguments, *SHORT)
        assert str(folder / name / "network") in done.stdout
    assert list((folder / "ddpm" / "pictures").glob("*.png"))
    assert list((folder / "ddpm" / "tensorboard").iterdir())
    return folder


def explain(networks, out, *arguments, ok=True):
    roles = {"generator": "ddpm", "regressor": "regressor", "oracle": "oracle"}
    checkpoints = [
        f"--config.{role}.checkpoint={networks / name / 'network'}" for role, name in roles.items()
    ]
    return command(
        "explain.py", "--config=configs/squares_acre.py", f"--workdir={out}", *checkpoints,
        "--config.data.limit=2", "--config.method.iterations=2", "--config.method.tau=1",
        *arguments, ok=ok,
    )  # fmt: skip


def test_train_explain_measure(networks, tmp_path):
    out = tmp_path / "out"
    done = explain(networks, out)
    assert f"The report is {out / 'report.html'}" in done.stdout
    assert "2/2" in done.stderr and "|y-target|" in done.stderr  # the progress bar
    rows = [json.loads(line) for line in (out / "results.jsonl").open()]
    assert {row["name"] for row in rows} == {"lower_000.png", "lower_001.png"}

    done = command("-m", "eval.metrics", f"--results={out}")
    assert "square_mae" in done.stdout and "oracle_mae" in done.stdout
    metrics = json.loads((out / "metrics.json").read_text())["metrics"]
    assert {"square_mae", "background_mae", "success_rate", "oracle_mae"} <= set(metrics)
    assert metrics["success_rate"]["mean"] == sum(row["success"] for row in rows) / 2


def test_a_bad_image_among_good_ones(networks, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "bad.png").write_bytes(b"no image")
    (folder / "good.png").write_bytes(encode_png(Squares("validation", 1)[0].image))
    done = explain(
        networks, tmp_path / "out", f"--config.data.path={folder}", "--config.targets=0.5", ok=False
    )
    assert done.returncode == 2 and "bad.png" in done.stderr.splitlines()[-1]
    assert "report.html" in done.stdout and (tmp_path / "out/cf/good.png").is_file()


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        ("explain.py", ["--config.method.taus=3"], "taus"),
        ("explain.py", ["--config.batch_size=many"], "batch_size=many must be .* auto"),
        ("explain.py", ["--compile_only", "--topology=h100:8"], "Unknown TPU generation"),
        ("explain.py", ["--config.generator.checkpoint=nowhere"], "no network at .*nowhere"),
        ("train.py", ["--config=configs/train/none.py"], "none.py"),
        ("train.py", ["--config=configs/train/squares_paper.py"], "py: unknown network '': use sq"),
        ("train.py", ["--config=configs/train/ddpm.py:huge"], "py:huge: unknown size 'huge': use"),
        ("train.py", ["--config=configs/train/squares_ddpm.py:x"], "py:x: get_config.. takes 0 "),
        ("train.py", ["--config=configs/train/latent_dpm.py:tiny"], "config.objective.diffae: "),
    ],
)
def test_errors_are_one_sentence(tmp_path, script, arguments, message):
    config = "configs/squares_acre.py"
    done = command(script, f"--config={config}", f"--workdir={tmp_path}", *arguments, ok=False)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: ")
    assert re.search(message, line), line
