"""The command on a run of tiny networks, whose images and searches are real."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffcf_jax.checkpoint.network import build_module
from diffcf_jax.data.squares import Squares
from diffcf_jax.errors import UserError
from diffcf_jax.files import read_image, write_file
from diffcf_jax.results.log import read_results
from diffcf_jax.run import run
from eval.geometry.__main__ import geometry, main
from tests import tiny

METHOD = {
    "name": "diffae-re", "inversion_steps": 2, "decode_steps": 2, "iterations": 20,
    "threshold": 0.2,
}  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    networks, folder = tmp_path_factory.mktemp("networks"), tmp_path_factory.mktemp("run")
    run(
        folder,
        method=METHOD,
        generator={"checkpoint": tiny.save(networks / "diffae", tiny.DIFFAE)},
        regressor={"checkpoint": tiny.save(networks / "regressor", tiny.REGRESSOR)},
        oracle={"checkpoint": tiny.save(networks / "oracle", tiny.REGRESSOR, 1)},
        data={"name": "squares", "path": "", "limit": 2, "convert": False},
        targets=TARGETS,
        batch_size=2,
        seed=0,
    )
    return folder
