import dataclasses
import json
import os
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffcf_jax.checkpoint.network import fingerprint
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


@pytest.fixture(scope="module")
def regressor(tmp_path_factory):
    """A network directory, to be copied."""
    return Path(tiny.save(tmp_path_factory.mktemp("store") / "network", tiny.REGRESSOR))


def refused(path, *words):
    with pytest.raises(UserError) as caught:
        load_network(path)
    sentence = str(caught.value)
    assert str(path) in sentence and "\n" not in sentence and len(sentence) < 600
    for word in words:
        assert word in sentence, sentence


def test_a_missing_network_is_told_with_what_makes_one(tmp_path):
    refused(tmp_path / "network", f"no network at {tmp_path / 'network'}", "train")


BROKEN = [
    ("{", "not valid JSON"),
    ("[" * 100_000, "not valid JSON"),
    ("9" * 5000, "not valid JSON"),
    ("[]", "must be an object"),
    ({"kind": None}, "Unknown network kind None"),
    ({"kind": ["resnet"]}, "Unknown network kind a list"),
    ({"kind": "restnet"}, "Unknown network kind 'restnet'"),
    ({"kind": ...}, "lacks the keys kind"),
    ({"format": 9}, "has format 9"),
    ({"format": "1"}, "no whole number as its format"),
    ({"format": ...}, "no whole number as its format"),
    ({"image_size": "64"}, "image_size is '64'"),
    ({"image_size": -64}, "image_size is -64"),
    ({"image_size": 64.5}, "image_size is 64.5"),
    ({"image_size": None}, "image_size is None"),
    ({"image_size": True}, "image_size is True"),
    ({"mean": "1"}, "mean is '1'"),
    ({"mean": float("nan")}, "mean is nan"),
    ({"scale": 0}, "scale is 0"),
    ({"scale": 10**400}, "scale is 1000"),
    ({"unit": 3}, "unit is 3"),
    ({"digest": 3}, "digest is 3"),
    ({"model": None}, "model is None"),
    ({"model": {"wdth": 4}}, "arguments do not fit a ResNet: there is no 'wdth'"),
    ({"model": {"width": "4"}}, "model.width is '4' instead of a whole number"),
    ({"model": {"width": -4}}, "model.width is -4 instead of a whole number"),
    ({"model": {"width": 10**30}}, "model.width is 1000"),
    ({"model": {"circular": "false"}}, "model.circular is 'false' instead of true or false"),
    ({"model": {"hidden": 0.5}}, "model.hidden is 0.5 instead of a whole number or null"),
    ({"model": {"blocks": [1, "1"]}}, "model.blocks is a list instead of a list of numbers"),
    ({"model": {"blocks": 3}}, "model.blocks is 3 instead of a list of numbers"),
    ({"model": {"blocks": [1000]}}, "deeper than 512"),
    ({"model": {"stem_stride": 0}}, "model.stem_stride is 0 instead of a whole number"),
    (tiny.DDPM | {"model": {"channels": 33}}, "no ddpm that can be built"),
    ({"model": {**tiny.REGRESSOR["model"], "width": 8}}, "does not match its network.json"),
    ({"diffusion": []}, "diffusion is a list"),
    ({"diffusion": {"steps": 10**12}}, "diffusion.steps is 1000000000000"),
    ({"diffusion": {"schedule": 3}}, "diffusion"),
    ({"diffusion": {"speed": 3}}, "diffusion"),
    ({"kind": "ddpm", "model": {}}, "diffusion is None"),
    ({"kind": "diffae", "model": {"unet": 3, "encoder": {}}}, "model.unet is 3"),
    ({"kind": "diffae", "model": {"unet": {}}}, "model.encoder is None"),
]


@pytest.mark.parametrize("change, message", BROKEN, ids=[str(m) for _, m in BROKEN])
def test_a_network_json_that_describes_no_network(tmp_path, regressor, change, message):
    text = (regressor / "network.json").read_text()
    if isinstance(change, dict):
        changed = {k: v for k, v in (json.loads(text) | change).items() if v is not ...}
        change = json.dumps(changed)
    (tmp_path / "params").symlink_to(regressor / "params")
    (tmp_path / "network.json").write_text(change)
    refused(tmp_path, message)


def test_values_that_changed_after_saving_are_noticed(tmp_path, regressor, caplog):
    other = Path(tiny.save(tmp_path / "other", tiny.REGRESSOR, seed=1))
    shutil.rmtree(other / "params")
    shutil.copytree(regressor / "params", other / "params")
    refused(other, "params is damaged; copy or train")
    # A network of an earlier version loads, with a warning.
    description = json.loads((other / "network.json").read_text())
    del description["digest"]
    (other / "network.json").write_text(json.dumps(description))
    with caplog.at_level("WARNING"):
        load_network(other)
    assert "has no digest" in caplog.text


def test_no_flipped_bit_changes_a_network(tmp_path, regressor):
    files = [path for path in regressor.rglob("*") if path.stat().st_size > 100 and path.is_file()]
    largest = max(files, key=lambda path: path.stat().st_size).relative_to(regressor)
    shutil.copytree(regressor, tmp_path / "network")
    whole, damaged = (regressor / largest).read_bytes(), tmp_path / "network" / largest
    noticed = 0
    for place in np.linspace(0, len(whole) - 1, 8).astype(int):
        data = bytearray(whole)
        data[place] ^= 16
        damaged.write_bytes(data)
        try:
            network = load_network(tmp_path / "network")
        except UserError as error:
            noticed += "params" in str(error)
        else:  # the bit means nothing
            assert fingerprint(network.variables) == network.description["digest"]
    assert noticed >= 4


def test_values_that_are_not_finite_are_refused_by_name(tmp_path):
    variables = jax.tree.map(np.array, tiny.variables(tiny.REGRESSOR))
    kernel = variables["params"]["conv1"]["kernel"]
    for value in np.nan, np.inf:
        kernel[0, 0, 0, 0] = value
        save_network(tmp_path / "network", tiny.REGRESSOR, variables)
        refused(tmp_path / "network", "values of params/conv1/kernel that are not finite")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
@pytest.mark.parametrize("name", ["network.json", "params/_METADATA", "params/manifest.ocdbt"])
def test_what_is_no_regular_file_is_not_opened(tmp_path, regressor, name):
    shutil.copytree(regressor, tmp_path / "network")
    path = tmp_path / "network" / name
    for make in os.mkfifo, lambda path: path.symlink_to("/dev/zero"):
        path.unlink()
        make(path)
        refused(tmp_path / "network", f"{name}: it is not a regular file")


def test_orbax_metadata_with_other_keys(tmp_path, regressor):
    text = (regressor / "params/_METADATA").read_text()
    shutil.copytree(regressor, tmp_path / "network")
    for key in "tree_metadata", "key_metadata", "value_metadata", "value_type", "conv1":
        (tmp_path / "network/params/_METADATA").write_text(text.replace(key, "renamed"))
        refused(tmp_path / "network", "params cannot be read; copy or train")


def test_repr_is_one_line(regressor):
    network = load_network(regressor)
    assert repr(network) == "Network(resnet, 64x64 pixels, 533 parameters)"
    years = dataclasses.replace(network, description={**network.description, "unit": "years"})
    assert repr(years).endswith("parameters, in years)")


def test_truncated_files_are_told(tmp_path, regressor):
    shutil.copytree(regressor, tmp_path / "whole")
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
            save_state(checkpoints, step, {"w": jnp.full(3, float(step))})
    cut(tmp_path / "4/default" / name)
    with training_checkpoints(tmp_path) as checkpoints:
        assert restore_state(checkpoints, zeros)["w"][0] == 2
        assert (tmp_path / "4.damaged").is_dir()
        save_state(checkpoints, 4, {"w": jnp.full(3, 5.0)})
    with training_checkpoints(tmp_path) as checkpoints:
        assert restore_state(checkpoints, zeros)["w"][0] == 5
        with pytest.raises(
            UserError,
            match=r"4 does not fit this config \(w is float32\[3\] instead of float32\[4\]\)",
        ):
            restore_state(checkpoints, {"w": jnp.zeros(4)})
    for step in (2, 4):
        cut(tmp_path / f"{step}/default" / name)
    every = pytest.raises(UserError, match=f"Every checkpoint in {tmp_path} is damaged; remove")
    with training_checkpoints(tmp_path) as checkpoints, every:
        restore_state(checkpoints, zeros)
    assert (tmp_path / "4").is_dir()


def test_a_training_state_with_other_values_gives_way_to_an_older_one(tmp_path):
    with training_checkpoints(tmp_path) as checkpoints:
        for step in (2, 4):
            save_state(checkpoints, step, {"w": jnp.full(3, float(step))})
    shutil.rmtree(tmp_path / "4/default")
    shutil.copytree(tmp_path / "2/default", tmp_path / "4/default")
    with training_checkpoints(tmp_path) as checkpoints:
        assert restore_state(checkpoints, {"w": jnp.zeros(3)})["w"][0] == 2
    assert (tmp_path / "4.damaged").is_dir()


def test_description_is_plain_json(tmp_path):
    tiny.save(tmp_path / "network", tiny.DDPM)
    found = json.loads((tmp_path / "network" / "network.json").read_text())
    assert found["format"] == 1 and found["model"]["channels"] == 32
