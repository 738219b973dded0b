"""The shipped configs: all load, and those of the originals' checkpoints say how to get them."""

import ast
import importlib
import shlex
from pathlib import Path

import pytest

from diffcf_jax import shipped
from diffcf_jax.checkpoint import convert
from diffcf_jax.errors import UserError
from diffcf_jax.fetch import faces
from diffcf_jax.inputs import load_networks
from diffcf_jax.regressors.output import parse_output
from diffcf_jax.regressors.preprocess import parse_preprocess
from diffcf_jax.units import unit_of

CONFIGS = Path(__file__).parents[1] / "configs"


def load(name, *variant):
    return importlib.import_module(f"diffcf_jax.configs.{name}").get_config(*variant)


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.py")), ids=lambda path: path.stem)
def test_configs_import_nothing_but_configs_and_the_options_of_methods(path):
    modules = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "diffcf_jax":
            assert {alias.name for alias in node.names} <= {"ACRE", "DiffAERE", "Hybrid"}
        elif isinstance(node, ast.ImportFrom):
            modules.add(node.module)
        elif isinstance(node, ast.Import):
            modules.update(alias.name for alias in node.names)
    options = "diffcf_jax.counterfactual.options"
    allowed = ("ml_collections", "typing", "dataclasses", "diffcf_jax.configs", options)
    assert all(module.startswith(allowed) for module in modules), modules


@pytest.mark.parametrize("method", ["acre", "diffae"])
def test_configs_for_explaining_have_the_same_keys_and_their_own_values(method):
    squares, own, faces = (load(f"{name}_{method}") for name in ("squares", "own", "celeba"))
    assert squares.keys() == own.keys() == faces.keys()
    assert squares.method.keys() == own.method.keys() == faces.method.keys()
    assert (squares.batch_size, own.batch_size, faces.batch_size) == ("16", "4", "auto")
    assert squares.data.to_dict() == {
        "name": "squares", "path": "", "limit": None, "convert": False,
        "masks": "", "mask": "", "mask_control": "",
    }  # fmt: skip
    assert own.data.convert and faces.data.attribute == "Young"
    assert squares.targets == "" and squares.seed == 0


def test_configs_of_the_hybrid_take_the_networks_of_both_methods():
    for name in ("squares", "own"):
        hybrid, acre, diffae = (load(f"{name}_{method}") for method in ("hybrid", "acre", "diffae"))
        assert hybrid.generator == diffae.generator and hybrid.refiner == acre.generator
        assert set(hybrid.keys()) == {*acre.keys(), "refiner"}
        assert (hybrid.data, hybrid.regressor) == (acre.data, acre.regressor)


def test_faces_are_explained_by_what_is_fetched():
    acre, diffae, hybrid = (load(f"faces_{method}") for method in ("acre", "diffae", "hybrid"))
    assert acre.keys() == load("own_acre").keys() == diffae.keys()
    assert hybrid.generator == diffae.generator and hybrid.refiner == acre.generator
    for config in (acre, diffae, hybrid):
        named = [config.regressor.model, config.oracle.checkpoint, *config.oracles.split(",")]
        assert {path.removeprefix("faces/") for path in named} <= {*faces.FILES, *faces.NETWORKS}
        assert (config.data.path, config.targets) == ("faces/test", "20,40,60,80")
        assert config.method.threshold == 2 and unit_of({}, config.regressor).name == "years"
        text = [config.regressor.preprocess, config.regressor.output]
        assert str(parse_preprocess(text[0])) == text[0] and str(parse_output(text[1])) == text[1]


def test_the_second_regressor_of_faces_is_read_as_the_first():
    for method in ("acre", "diffae", "hybrid"):
        first, second = load(f"faces_{method}"), load(f"faces_{method}", "expert")
        assert first.keys() == second.keys() and first.regressor.keys() == second.regressor.keys()
        assert second.regressor.model.removeprefix("faces/") in faces.FILES
        text = second.regressor.preprocess
        assert str(parse_preprocess(text)) == text
    with pytest.raises(ValueError, match="unknown regressor 'b': use age_v1 or expert"):
        load("faces_acre", "b")


def test_configs_are_found_by_name_and_by_file(tmp_path, monkeypatch):
    names = shipped.config_names()
    assert "squares_acre" in names and "train/squares_ddpm" in names
    assert not any("common" in name or "__init__" in name for name in names)
    monkeypatch.chdir(tmp_path)
    found = str(CONFIGS / "train" / "regressor.py")
    for text in ("train/regressor", "train/regressor.py", "configs/train/regressor.py"):
        assert shipped.find_config(text) == found
        assert shipped.find_config(f"{text}:tiny") == f"{found}:tiny"
    (tmp_path / "squares_acre.py").write_text("")  # a file of one's own comes first
    assert shipped.find_config("squares_acre.py:x") == "squares_acre.py:x"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert shipped.find_config("~/squares_acre.py") == str(tmp_path / "squares_acre.py")
    for wrong, near in (("squares_acra", "squares_acre"), ("ddpm", "train/ddpm")):
        with pytest.raises(UserError, match=f"no file {wrong} in {tmp_path}.* such as .*{near}"):
            shipped.find_config(wrong)


def test_shipped_checkpoints_are_found_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = shipped.folder("checkpoints") / "squares_oracle"
    assert (found / "network.json").is_file()
    for text in ("squares_oracle", "checkpoints/squares_oracle", Path("squares_oracle")):
        assert shipped.find_checkpoint(text) == found
    assert shipped.find_checkpoint("checkpoints/none") == tmp_path / "checkpoints" / "none"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert shipped.find_checkpoint("~/squares_oracle") == tmp_path / "squares_oracle"
    (tmp_path / "squares_oracle").mkdir()  # a folder of one's own comes first
    assert shipped.find_checkpoint("squares_oracle") == tmp_path / "squares_oracle"


def test_celeba_has_the_papers_numbers_in_years():
    ac_re, diffae_re = load("celeba_acre"), load("celeba_diffae")
    assert ac_re.method.step_size == 1 / 255
    expected = {"respacing": "25", "tau": 5, "iterations": 200, "inpaint": 0.15, "dilation": 15}
    assert {key: ac_re.method[key] for key in expected} == expected
    expected = {"decode_steps": 10, "inversion_steps": 250, "learning_rate": 0.002}
    expected |= {"distance_weight": 1e-5, "distance": "l1", "distance_space": "latent"}
    assert {key: diffae_re.method[key] for key in expected} == expected
    for config in (ac_re, diffae_re):
        unit = unit_of({}, config.regressor)
        assert unit.name == "years" and config.method.threshold / unit.scale == 0.05
        targets = [unit.normalise(target) for target in config.data.attribute_targets]
        assert targets == pytest.approx([0.1, 0.8])


@pytest.mark.parametrize("name", ["celeba_acre", "celeba_diffae"])
def test_celeba_without_checkpoints_says_what_to_do_in_one_screen(name, capsys):
    config = load(name).to_dict()
    with pytest.raises(UserError) as caught:
        load_networks(config["generator"], config["regressor"], config["oracle"])
    lines = str(caught.value).splitlines()
    assert len(lines) <= 24
    commands = [line.split("convert  ")[1] for line in lines if line.startswith("  convert")]
    assert len(commands) == 3 == str(caught.value).count("  from ")
    for command in commands:  # the converter knows every flag, and only lacks the file
        words = shlex.split(command)
        assert words[:2] == ["diffcf", "convert"]
        assert convert.main(words[2:]) == 2
        assert "No such file" in capsys.readouterr().err
