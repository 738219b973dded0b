"""The measurement of this package's own side, and its table."""

import time
from pathlib import Path

import numpy as np
import pytest

from diffcf_jax.errors import UserError
from eval.speed import __main__ as speed
from eval.speed import trained
from eval.speed.__main__ import main, table
from tests import tiny

CONFIG = """
import ml_collections

def get_config():
    return ml_collections.ConfigDict(dict(
        method=dict(name="ac-re", respacing="20", tau=2, iterations=2, threshold=0.5),
        generator=dict(checkpoint={generator!r}),
        regressor=dict(checkpoint={regressor!r}),
        data=dict(name="squares"),
    ))
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("speed")
    text = CONFIG.format(
        generator=tiny.save(folder / "generator", tiny.DDPM),
        regressor=tiny.save(folder / "regressor", tiny.REGRESSOR),
    )
    path = folder / "config.py"
    path.write_text(text)
    return str(path)


def read_table(text):
    """The measured numbers, of which the first of a cell is the median."""
    rows = {line[:34].strip(): line[34:].split() for line in text.splitlines()[1:]}
    return {name: float(cells[0]) for name, cells in rows.items()}


def test_our_own_side(config, capsys):
    start = time.monotonic()
    assert main(["--config", config, "--batch", "2", "--repeats", "1", "--images", "3"]) == 0
    wall = time.monotonic() - start
    text = capsys.readouterr().out
    assert text.splitlines()[0].split() == ["batch", "2", "diffcf_jax"]
    numbers = read_table(text)
    assert 0.1 < numbers["peak memory, GiB"] < 4
    assert 0 < numbers["seconds per counterfactual"] < numbers["the same with compiling"]
    # A timed iteration and a run of three images are a part of what it took.
    iterating = numbers["seconds per iteration"]
    explaining = 3 * numbers["the same with compiling"]
    spent = numbers["seconds until the first iteration"] + iterating + explaining
    assert 0 < iterating < spent < wall + 0.1


KNOWN = """
import time
from pathlib import Path
from eval.speed.job import serve

def prepare(folder):
    time.sleep(0.3)
    run = {"seconds": 6.0, "compile_seconds": 4.5, "success": [True, False, True]}
    return {"iterate": lambda: time.sleep(0.2), "explain": lambda: run}

serve(prepare)
"""


def test_a_side_of_known_speed(tmp_path, monkeypatch):
    (tmp_path / "known_side.py").write_text(KNOWN)
    (tmp_path / "job.json").write_text('{"threads": 1}')
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}")
    monkeypatch.setitem(speed.SIDES, "diffcf_jax", "known_side")
    numbers = read_table(table(3, speed.measure(tmp_path, ["diffcf_jax"], 3, whole_run=True)))
    assert 0.3 <= numbers["seconds until the first iteration"] < 30
    assert 0.2 <= numbers["seconds per iteration"] < 1
    assert numbers["CPU seconds per iteration"] < 0.05
    assert numbers["seconds per counterfactual"] == 0.5
    assert numbers["the same with compiling"] == 2.0


TRAINING = """
from configs.train import squares_ddpm, squares_oracle

def get_config(network):
    if network == "oracle":
        return squares_oracle.get_config()
    if network != "ddpm":
        raise ValueError(f"unknown network '{network}'")
    config = squares_ddpm.get_config()
    config.network.model = MODEL
    return config
"""


@pytest.fixture
def training(tmp_path):
    path = tmp_path / "training.py"
    path.write_text(TRAINING.replace("MODEL", repr(tiny.DDPM["model"])))
    return str(path)


def test_an_update_of_a_training(training, capsys):
    start = time.monotonic()
    assert main(["--config", f"{training}:ddpm", "--batch", "2", "--repeats", "1"]) == 0
    wall = time.monotonic() - start
    numbers = read_table(capsys.readouterr().out)
    spent = numbers["seconds until the first iteration"] + numbers["seconds per iteration"]
    assert 0 < spent < wall + 0.1
    assert "seconds per counterfactual" not in numbers


def test_wrong_trainings(training, tmp_path, capsys):
    other = tmp_path / "other.py"
    other.write_text("import ml_collections\nget_config = ml_collections.ConfigDict\n")
    assert main(["--config", str(other)]) == 2
    assert "--config is neither for explaining (method) nor" in capsys.readouterr().err
    assert main(["--config", f"{training}:oracle"]) == 2
    assert "trains a resnet; eval.speed knows ddpm and diffae" in capsys.readouterr().err
    assert main(["--config", f"{training}:other"]) == 2
    assert "training.py:other: unknown network 'other'" in capsys.readouterr().err
    assert main(["--config", training]) == 2
    assert "missing 1 required positional argument" in capsys.readouterr().err
    assert main(["--config", f"{training}:ddpm", "--images", "2"]) == 2
    assert "--images needs a config for explaining" in capsys.readouterr().err


def test_whole_runs_of_trained_networks(config, capsys):
    assert main(["--config", config, "--trained", "--images", "2", "--batch", "2",
                 "--repeats", "1"]) == 0  # fmt: skip
    text = capsys.readouterr().out
    assert text.splitlines()[0].split() == ["2", "squares,", "batch", "2", "diffcf_jax"]
    numbers = read_table(text)
    assert 0 < numbers["the same with compiling"] < numbers["counterfactuals per hour"]
    seconds = 3600 * (1 / numbers["the same with compiling"])
    assert numbers["seconds of compiling"] < 2 * seconds
    assert 1 <= numbers["iterations"] <= 2  # the config's most
    assert numbers["success, as the method sees it"] == numbers["success of the saved image"]
    assert 0 < numbers["Square MAE"] < 1
    assert 0 <= numbers["Background MAE"] < 1
    assert "times as many per hour" not in numbers


def test_the_table_of_trained_networks():
    ours = {
        "seconds": 30.0, "compile_seconds": 20.0, "cpu_seconds": 50.0, "compile_cpu_seconds": 30.0,
        "success": [True, True], "success_saved": 1.0, "iterations": [3, 5],
        "square_mae": 0.04, "background_mae": 0.0004,
    }  # fmt: skip
    theirs = ours | {"seconds": 100.0, "compile_seconds": 0.0, "compile_cpu_seconds": 0.0,
                     "cpu_seconds": 160.0, "success": [True, False]}  # fmt: skip
    slower = theirs | {"seconds": 200.0}
    text = trained.table(2, {"diffcf_jax": [ours], "paper": [slower, theirs, slower]})
    assert text.splitlines()[0].split() == [
        "2", "squares,", "batch", "2", "diffcf_jax", "originals,", "paper"
    ]  # fmt: skip
    rows = {line[:34].strip(): line[34:].split() for line in text.splitlines()}
    assert rows["counterfactuals per hour"] == ["720.0", "36.0"]
    assert rows["the same with compiling"] == ["240.0", "36.0"]
    assert rows["CPU seconds per counterfactual"] == ["10.00", "80.00"]
    assert rows["success, as the method sees it"] == ["1.000", "0.500"]
    assert rows["iterations"] == ["4.0", "4.0"]
    assert rows["times as many per hour"] == ["20.0"]
    assert rows["with compiling"] == ["6.7"]
    assert rows["times as few CPU seconds"] == ["8.0"]


class Answers:
    """A side that answers every command alike."""

    def __init__(self, result):
        self.result = result

    def ask(self, command):
        return {"result": self.result}


def test_sides_that_differ_are_not_compared(tmp_path):
    for name, value in (("diffcf_jax", 0.5), ("originals", 0.50001)):
        np.save(tmp_path / f"check_{name}.npy", np.full((1, 2, 2, 3), value))
    sides = {"diffcf_jax": Answers([0.25]), "originals": Answers([0.25])}
    assert trained.check(sides, tmp_path).endswith(
        "at most: predictions by 0.0e+00, generated images by 1.0e-05."
    )
    sides["originals"] = Answers([0.26])
    with pytest.raises(UserError, match=r"their predictions differ by 0.01, and 0.0001 is"):
        trained.check(sides, tmp_path)
    sides["originals"] = Answers([0.25])
    np.save(tmp_path / "check_originals.npy", np.full((1, 2, 2, 3), np.nan))
    with pytest.raises(UserError, match="their generated images differ by nan"):
        trained.check(sides, tmp_path)


def test_wrong_arguments(config, training, tmp_path, capsys):
    assert main(["--config", config, "--trained"]) == 2
    assert "--images=0 must be the number of squares to explain" in capsys.readouterr().err
    model = tmp_path / "model.py"
    model.write_text(Path(config).read_text().replace("checkpoint='", "model='", 2))
    assert main(["--config", str(model), "--trained", "--images", "2"]) == 2
    assert "instead of config.regressor.model" in capsys.readouterr().err
    assert main(["--config", f"{training}:ddpm", "--trained", "--images", "2"]) == 2
    assert "--trained needs a config that explains the squares" in capsys.readouterr().err
    assert main(["--config", "nothing.py"]) == 2
    assert "there is no file nothing.py in" in capsys.readouterr().err
    assert main(["--config", config, "--batch", "1,x"]) == 2
    assert "--batch=1,x must be whole numbers" in capsys.readouterr().err
    assert main(["--config", config, "--repeats", "0"]) == 2
    assert "--repeats=0: 0 is not a positive integer" in capsys.readouterr().err
    # The tiny network works on patches, which the originals do not know.
    assert main(["--config", config, "--batch", "1", "--originals", "."]) == 2
    assert "cannot build this network: patch_size" in capsys.readouterr().err


def test_the_table_has_medians_spreads_and_ratios():
    ours = {"seconds": [2.0, 1.0, 3.0], "cpu_seconds": [4.0], "peak_bytes": 2**30,
            "compile_seconds": 5.0}  # fmt: skip
    theirs = {"seconds": [8.0, 8.0, 9.0], "cpu_seconds": [16.0], "peak_bytes": 3 * 2**30,
              "compile_seconds": 1.0}  # fmt: skip
    text = table(4, {"diffcf_jax": ours, "originals": theirs})
    rows = {line[:34].strip(): line[34:].split() for line in text.splitlines()}
    assert rows["seconds per iteration"] == [
        "2.000", "(1.000-3.000)", "8.000", "(8.000-9.000)", "4.00"
    ]  # fmt: skip
    assert rows["peak memory, GiB"] == ["1.00", "3.00", "3.00"]
