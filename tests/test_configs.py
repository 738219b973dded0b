"""The configs that need the originals' checkpoints: their numbers, and what they ask for."""

import contextlib
import importlib.util
import io
import shlex
from pathlib import Path

import pytest

from diffcf_jax.checkpoint import convert
from diffcf_jax.errors import UserError
from diffcf_jax.inputs import load_networks
from diffcf_jax.units import unit_of

CONFIGS = Path(__file__).parents[1] / "configs"


def load(name):
    spec = importlib.util.spec_from_file_location(name, CONFIGS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config()


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.py")), ids=lambda path: path.stem)
def test_every_config_loads_and_imports_nothing_of_the_package(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    assert "diffcf_jax import" not in path.read_text()


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
def test_celeba_without_checkpoints_says_what_to_do_in_one_screen(name):
    config = load(name).to_dict()
    with pytest.raises(UserError) as caught:
        load_networks(config["generator"], config["regressor"], config["oracle"])
    lines = str(caught.value).splitlines()
    assert len(lines) <= 24
    commands = [line.split("convert  ")[1] for line in lines if line.startswith("  convert")]
    assert len(commands) == 3 == str(caught.value).count("  from ")
    for command in commands:  # the converter knows every flag, and only lacks the file
        words = shlex.split(command)
        assert words[:3] == ["python", "-m", "diffcf_jax.checkpoint.convert"]
        with contextlib.redirect_stderr(io.StringIO()) as stderr:
            assert convert.main(words[3:]) == 2
        assert "does not exist" in stderr.getvalue()
