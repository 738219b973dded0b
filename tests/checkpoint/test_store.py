import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffcf_jax.checkpoint.store import (
    load_network,
    recover_network,
    restore_state,
    save_network,
    save_state,
    training_checkpoints,
)
from diffcf_jax.errors import UserError
from tests import tiny


@pytest.mark.parametrize("description", [tiny.DDPM, tiny.DIFFAE, tiny.REGRESSOR])
def test_round_trip(tmp_path, description):
    variables = tiny.variables(description)
    save_network(tmp_path / "network", description, variables)
    network = load_network(tmp_path / "network")
    jax.tree.map(np.testing.assert_array_equal, network.variables, variables)
    assert network.kind == description["kind"]
    # Tuples become lists in JSON, which must not matter.
    assert jax.tree.all(
        jax.tree.map(np.array_equal, tiny.variables(network.description), variables)
    )
    assert not list(tmp_path.glob(".network*"))


def test_replaces_an_older_network(tmp_path):
    tiny.save(tmp_path / "network", tiny.REGRESSOR, seed=0)
    tiny.save(tmp_path / "network", tiny.REGRESSOR, seed=1)
    wanted = tiny.variables(tiny.REGRESSOR, seed=1)
    jax.tree.map(
        np.testing.assert_array_equal, load_network(tmp_path / "network").variables, wanted
    )


def test_a_network_that_was_about_to_be_replaced_comes_back(tmp_path):
    network, older = tmp_path / "network", tmp_path / ".network.older"
    tiny.save(network, tiny.REGRESSOR)
    recover_network(network)  # nothing to do
    network.rename(older)  # as if killed before the new one took its place
    recover_network(network)
    load_network(network)
    assert not older.exists()


def test_errors_name_the_file_and_the_remedy(tmp_path):
    path = tmp_path / "network"
    with pytest.raises(UserError, match=f"no network at {path}.*diffcf train or diffcf convert"):
        load_network(path)

    tiny.save(path, tiny.REGRESSOR)
    text = (path / "network.json").read_text()
    for broken, message in (
        ("{", "not valid JSON"),
        (text.replace('"kind"', '"kin"'), "lacks the keys kind"),
        (text.replace('"format": 1', '"format": 9'), "has format 9"),
        (text.replace('"resnet"', '"restnet"'), "Unknown network kind 'restnet'"),
        (text.replace('"width"', '"wdth"'), "arguments do not fit a resnet"),
        (text.replace('"width": 4', '"width": 8'), "holds another network.*shape"),
    ):
        (path / "network.json").write_text(broken)
        with pytest.raises(UserError, match=message):
            load_network(path)
    (path / "network.json").write_text(text)
    load_network(path)


def test_truncated_files_are_told(tmp_path):
    tiny.save(tmp_path / "whole", tiny.REGRESSOR)
    blocks = sorted((tmp_path / "whole/params/d").iterdir(), key=lambda p: p.stat().st_size)
    for name in (
        "manifest.ocdbt",
        "_METADATA",
        "array_metadatas/process_0",
        f"d/{blocks[-1].name}",
    ):
        shutil.copytree(tmp_path / "whole", tmp_path / "cut")
        cut(tmp_path / "cut/params" / name)
        with pytest.raises(UserError, match="params (is damaged|cannot be read).*again"):
            load_network(tmp_path / "cut")
        shutil.rmtree(tmp_path / "cut")
    shutil.rmtree(tmp_path / "whole/params")
    with pytest.raises(UserError, match="params cannot be read"):
        load_network(tmp_path / "whole")


def cut(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


@pytest.mark.parametrize("name", ["_METADATA", "manifest.ocdbt"])
def test_a_damaged_training_state_gives_way_to_an_older_one(tmp_path, name):
    zeros = {"w": jnp.zeros(3)}
    with training_checkpoints(tmp_path) as checkpoints:
        for step in (2, 4):
            save_state(checkpoints, step, {"w": jnp.full(3, step)})
    cut(tmp_path / "4/default" / name)
    with training_checkpoints(tmp_path) as checkpoints:
        assert restore_state(checkpoints, zeros)["w"][0] == 2
        assert (tmp_path / "4.damaged").is_dir()
        save_state(checkpoints, 4, {"w": jnp.full(3, 5)})
    with training_checkpoints(tmp_path) as checkpoints:
        assert restore_state(checkpoints, zeros)["w"][0] == 5
        with pytest.raises(UserError, match=r"4 does not fit this config \(w has shape"):
            restore_state(checkpoints, {"w": jnp.zeros(4)})
    for step in (2, 4):
        cut(tmp_path / f"{step}/default" / name)
    every = pytest.raises(UserError, match=f"Every checkpoint in {tmp_path} is damaged; remove")
    with training_checkpoints(tmp_path) as checkpoints, every:
        restore_state(checkpoints, zeros)
    assert (tmp_path / "4").is_dir()


def test_description_is_plain_json(tmp_path):
    tiny.save(tmp_path / "network", tiny.DDPM)
    found = json.loads((tmp_path / "network" / "network.json").read_text())
    assert found["format"] == 1 and found["model"]["channels"] == 32
