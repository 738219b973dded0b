"""The measurement of this package's own side, and its table."""

import pytest

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


def test_our_own_side(config, capsys):
    assert main(["--config", config, "--batch", "2", "--repeats", "2", "--images", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["batch", "2", "diffcf_jax"]
    numbers = {line[:34].strip(): float(line[34:].split()[0]) for line in lines[1:]}
    assert 0 < numbers["seconds an iteration"] < 10
    assert 0.1 < numbers["peak memory, GiB"] < 4
    assert 0 < numbers["seconds a counterfactual"] < numbers["the same with compiling"]


TRAINING = """
from configs.train import squares_ddpm, squares_oracle

def get_config(network):
    if network == "oracle":
        return squares_oracle.get_config()
    if network != "ddpm":
        raise ValueError(f"unknown network '{network}'")
    config = squares_ddpm.get_config()
    config.network.image_size = 32
    return config
"""


@pytest.fixture
def training(tmp_path):
    path = tmp_path / "training.py"
    path.write_text(TRAINING)
    return str(path)


def test_an_update_of_a_training(training, capsys):
    assert main(["--config", f"{training}:ddpm", "--batch", "2", "--repeats", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    numbers = {line[:34].strip(): float(line[34:].split()[0]) for line in lines[1:]}
    assert 0 < numbers["seconds an iteration"] < 10
    assert "seconds a counterfactual" not in numbers


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


def test_wrong_arguments(config, capsys):
    assert main(["--config", "nothing.py"]) == 2
    assert "there is no file nothing.py in" in capsys.readouterr().err
    assert main(["--config", config, "--batch", "1,x"]) == 2
    assert "--batch=1,x must be whole numbers" in capsys.readouterr().err
    assert main(["--config", config, "--repeats", "0"]) == 2
    assert "--repeats=0: 0 is not an integer in the range" in capsys.readouterr().err
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
    assert rows["seconds an iteration"] == [
        "2.000", "(1.000-3.000)", "8.000", "(8.000-9.000)", "4.00"
    ]  # fmt: skip
    assert rows["peak memory, GiB"] == ["1.00", "3.00", "3.00"]
