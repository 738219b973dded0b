import jax
import numpy as np
import pytest

from diffcf_jax.checkpoint.store import load_network, save_network
from diffcf_jax.errors import UserError
from diffcf_jax.training.initial import initial_variables
from tests import tiny

MODEL = {"growth": 4, "blocks": (1, 1), "init_features": 4}
NETWORK = {"kind": "densenet", "model": MODEL, "image_size": 64}


def test_a_classifier_becomes_a_regressor(tmp_path):
    classifier = {**NETWORK, "model": {**MODEL, "outputs": 3}}
    given = tiny.variables(classifier)
    save_network(tmp_path / "classifier", classifier, given)
    made = initial_variables(NETWORK, seed=0, init=str(tmp_path / "classifier"))
    assert made["params"]["classifier"]["kernel"].shape[1] == 1
    for name in set(made["params"]) - {"classifier"}:
        jax.tree.map(np.testing.assert_array_equal, made["params"][name], given["params"][name])
    jax.tree.map(np.testing.assert_array_equal, made["batch_stats"], given["batch_stats"])


def test_a_shipped_network_is_found_by_its_name():
    shipped = load_network("squares_regressor")
    made = initial_variables(shipped.description, seed=0, init="squares_regressor")
    jax.tree.map(np.testing.assert_array_equal, made, shipped.variables)


def test_a_ddpm_learns_to_be_told_of_geometry_and_forgets_it(tmp_path):
    told = {**tiny.DDPM, "model": {**tiny.DDPM["model"], "geometry_channels": 9}}
    for given, wanted in ((tiny.DDPM, told), (told, tiny.DDPM)):
        there = tiny.save(tmp_path / "there", given)
        made = initial_variables(wanted, seed=0, init=there)["params"]
        before = tiny.variables(given)["params"]
        if wanted is told:
            assert not made.pop("geometry_embed")["kernel"].any()
        before.pop("geometry_embed", None)
        jax.tree.map(np.testing.assert_array_equal, made, before)


def test_networks_that_do_not_fit_are_refused(tmp_path):
    there = tiny.save(tmp_path / "there", NETWORK)
    wider = {**NETWORK, "model": {**MODEL, "growth": 8}}
    with pytest.raises(UserError, match=r"norm2/mean has shape \(16,\) instead of \(32,\)"):
        initial_variables(wider, seed=0, init=there)
    deeper = {**NETWORK, "model": {**MODEL, "blocks": (1, 2)}}
    with pytest.raises(UserError, match="denseblock2_denselayer2/.* is missing"):
        initial_variables(deeper, seed=0, init=there)
    with pytest.raises(UserError, match="there is a densenet, but config.network.kind is resnet"):
        initial_variables(tiny.REGRESSOR, seed=0, init=there)
