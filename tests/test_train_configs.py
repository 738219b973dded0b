"""Every config of a training fits `train`, in every size."""

import importlib
import math
import pathlib

import jax
import pytest

from diffcf_jax.checkpoint.network import abstract_variables, build_module
from diffcf_jax.errors import UserError
from diffcf_jax.training.config import TrainConfig
from diffcf_jax.training.state import make_optimizer

SIZES = ("tiny", "small", "paper")
CONFIGS = {
    **{
        name: [(), *((size,) for size in SIZES)]
        for name in ("ddpm", "diffae", "regressor", "oracle")
    },
    "latent_dpm": [(), *((size,) for size in SIZES)],
    "imdb_wiki_regressor": [()],
    "imdb_wiki_oracle": [()],
    **{f"squares_{name}": [()] for name in ("ddpm", "diffae", "regressor", "oracle")},
    "squares_planted": [()],
    **{f"faces_{name}": [()] for name in ("ddpm", "diffae")},
    "squares_paper": [("ddpm",), ("diffae",), ("regressor",), ("oracle",)],
}


def get_config(name, *arguments):
    return importlib.import_module(f"configs.train.{name}").get_config(*arguments)


def parameters(config):
    network = {"image_size": config.get("image_size"), **config.network.to_dict()}
    leaves = jax.tree.leaves(abstract_variables(network)["params"])
    return sum(math.prod(leaf.shape) for leaf in leaves)


def test_all_are_tested():
    folder = pathlib.Path(__file__).parent.parent / "configs" / "train"
    assert {path.stem for path in folder.glob("[!_]*.py")} == CONFIGS.keys()


@pytest.mark.parametrize("name", CONFIGS)
def test_config_fits_train(name):
    for arguments in CONFIGS[name]:
        config = get_config(name, *arguments).to_dict()
        assert "init" in config  # or the flag --config.init would be refused
        made = TrainConfig.from_dict(config)
        make_optimizer(made.optimizer, made.steps)
        build_module(made.network)


@pytest.mark.parametrize("size", [*range(28, 48, 4), *range(48, 65, 8), 96, 128])
def test_tiny_networks_take_small_images(size):
    for name in ("ddpm", "diffae"):
        config = get_config(name)
        config.image_size = size  # what --config.image_size does
        unet = config.network.model.get("unet", config.network.model)
        assert unet.patch_size == (2 if size < 48 else 4)
        assert parameters(config) < 3e6
    regressor = get_config("regressor")
    regressor.image_size = size
    assert parameters(regressor) < 1e6


@pytest.mark.parametrize("name", ["ddpm", "diffae"])
def test_other_sizes_are_refused(name):
    config = get_config(name)
    for size, multiple in ((30, 4), (50, 8), (52, 8), (60, 8)):
        config.image_size = size
        with pytest.raises(UserError, match=f"a multiple of {multiple}, not {size}"):
            parameters(config)


def test_sizes_of_the_originals():
    assert parameters(get_config("squares_paper", "ddpm")) == 101_667_718
    assert parameters(get_config("squares_paper", "diffae")) == 90_839_235
    assert parameters(get_config("ddpm", "paper")) == 138_289_926
    assert parameters(get_config("diffae", "paper")) == 168_492_291


def test_an_oracle_is_another_regressor():
    regressor, oracle = get_config("regressor"), get_config("oracle")
    assert regressor.network == oracle.network and regressor.seed != oracle.seed
    assert oracle.objective.adversarial == 0


def test_unknown_sizes():
    for name in ("ddpm", "diffae", "regressor", "oracle", "squares_paper"):
        with pytest.raises(ValueError, match="'huge': use"):
            get_config(name, "huge")
