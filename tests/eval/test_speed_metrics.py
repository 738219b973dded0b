"""The table of metrics' networks, with two sides of known speed."""

from eval.speed import metrics
from eval.speed.metrics import main

SIDE = """
import json, sys
import numpy as np

job = json.load(open(sys.argv[1] + "/job.json"))
x, y, features = np.load(sys.argv[1] + "/images.npz").values()
assert x.shape == y.shape == (8, 32, 32, 3) and job["threads"] == 2
assert features.shape == (2, 32, 2048) and features.min() >= 0
assert job["counts"] == {{"ssim": 8, "kid": 32}}
for i, line in enumerate(sys.stdin):
    seconds, values = {sides}.get(line.strip(), (0, 0))
    seconds *= 9 if i in (1, 4) else 1  # the first call of each compiles
    print(json.dumps({{"cpu_seconds": seconds, "result": values}}), flush=True)
"""


def test_speeds_their_ratio_and_how_far_results_are_apart(tmp_path, monkeypatch, capsys):
    sides = {
        "ours": {"ssim": (0.5, [1.0, 2.02]), "kid": (8, [3.0])},
        "theirs": {"ssim": (1.0, [1.0, 2.0]), "kid": (4, [3.0])},
    }
    for name, answers in sides.items():
        (tmp_path / f"{name}.py").write_text(SIDE.format(sides=answers))
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}")
    monkeypatch.setattr(metrics, "_MODULES", {metrics.THEIRS: "theirs", metrics.OURS: "ours"})
    arguments = ["--images", "2", "--size", "32", "--repeats", "2"]
    assert main([*arguments, "--only", "ssim,kid"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    assert rows == [
        ["ssim", "8", "16", "8", "2.00", "1.0e-02"],
        ["kid", "32", "4", "8", "0.50", "0.0e+00"],
        ["suite", "3.2", "4", "0.80"],
        ["sharing", "Inception", "3.2", "4", "0.80"],
    ]
    assert main(["--only", "ssim,fud"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: --only=fud is unknown: use inception, ")


def test_a_side_that_fails_is_named(tmp_path, monkeypatch, capsys):
    (tmp_path / "broken.py").write_text("raise ImportError('No module named torchmetrics')")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}")
    monkeypatch.setattr(metrics, "_MODULES", {metrics.THEIRS: "broken"})
    assert main(["--images", "1", "--size", "32", "--only", "psnr"]) == 2
    assert "torchmetrics failed at 'prepare': ImportError: No module" in capsys.readouterr().err
