import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from diffcf_jax import parallel
from diffcf_jax.checkpoint.network import build_module
from diffcf_jax.checkpoint.store import load_network
from diffcf_jax.data.labelled import open_labelled
from diffcf_jax.errors import UserError
from diffcf_jax.flops import count_flops
from diffcf_jax.sampling import sample_images
from diffcf_jax.training.augment import GEOMETRY
from diffcf_jax.training.initial import initial_variables
from diffcf_jax.training.state import create_state, make_update
from diffcf_jax.training.task import make_task
from tests import tiny
from tests.training.runs import NETWORK, SIZE, config_on, train_on, write_images

CONFIG = dict(augment={"flips": True}, evaluate_every=4, evaluation={"images": 6}, steps=4)
HOT = {**CONFIG, "optimizer": {"learning_rate": float("inf")}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("data"), 24)


@pytest.fixture(scope="module")
def whole(folder):
    return folder / "run", train_on(folder, **CONFIG)


def lines(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").open()]


def test_what_a_training_leaves(whole, folder):
    workdir, summary = whole
    network = load_network(workdir / "network")
    labels = open_labelled(folder / "images", folder / "labels.csv", SIZE, 0.3)[0].labels
    assert network.description["mean"] == pytest.approx(labels.mean())
    assert network.description["scale"] == pytest.approx(labels.std())
    assert network.description["training"]["step"] == 4
    count = sum(leaf.size for leaf in jax.tree.leaves(network.variables))
    assert f"Total: {count:,}" in (workdir / "parameters.txt").read_text()
    best = load_network(workdir / "best")
    jax.tree.map(np.testing.assert_array_equal, best.variables, network.variables)
    last = lines(workdir)[-1]
    assert last["test/mae"] == summary.metrics["mae"] > 0
    assert summary.best == {"step": 4, "metrics": summary.metrics}
    assert str(workdir / "network") in str(summary) and "images per second" in str(summary)


def test_an_update_takes_two_to_three_times_the_operations_of_a_forward_pass(
    whole, folder, tmp_path
):
    module, variables = build_module(NETWORK), initial_variables(NETWORK, seed=0)
    images = jax.ShapeDtypeStruct((1, SIZE, SIZE, 3), jnp.float32)
    forward = count_flops(module.apply, variables, images)
    _, summary = whole
    assert 2 < summary.flops_per_second / summary.images_per_second / forward <= 3
    parts = train_on(folder, tmp_path, **{**CONFIG, "steps": 1}, accumulate=2)
    counts = [s.flops_per_second / s.images_per_second for s in (summary, parts)]
    assert counts[0] == pytest.approx(counts[1])

    assert summary.flop_utilisation is None and "of the peak" not in str(summary)  # of a CPU
    shown = str(dataclasses.replace(summary, flop_utilisation=0.412))
    assert " TFLOP/s, 41% of the peak)" in shown


def test_a_resumed_run_ends_like_an_uninterrupted_one(whole, folder, tmp_path):
    train_on(folder, tmp_path, **{**CONFIG, "steps": 2})
    train_on(folder, tmp_path, **CONFIG, workers=1, log_every=2)
    first, second = (load_network(path / "network") for path in (whole[0], tmp_path))
    jax.tree.map(np.testing.assert_array_equal, first.variables, second.variables)
    assert [line["step"] for line in lines(tmp_path) if "train/loss" in line] == [1, 2, 4]


def test_a_finished_training_renews_its_network(whole, folder, tmp_path):
    shutil.copytree(whole[0], tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "network")  # as if killed before it was written
    summary = train_on(folder, tmp_path, **CONFIG)
    first, second = (load_network(path / "network") for path in (whole[0], tmp_path))
    jax.tree.map(np.testing.assert_array_equal, first.variables, second.variables)
    assert summary.metrics == whole[1].metrics
    with pytest.raises(UserError, match="at step 4 already: give --config.steps=4 or more"):
        train_on(folder, tmp_path, **{**CONFIG, "steps": 3})


def test_another_config_in_the_workdir_is_refused(whole, folder):
    workdir, _ = whole
    before = {p: p.stat().st_mtime_ns for p in workdir.rglob("*") if p.name != ".lock"}
    other = {**NETWORK, "model": {**NETWORK["model"], "width": 8}}
    with pytest.raises(UserError, match=r"network.model.width \(4 there, 8 here\); seed \(0"):
        train_on(folder, **CONFIG, network=other, seed=1)
    assert before == {p: p.stat().st_mtime_ns for p in workdir.rglob("*") if p.name != ".lock"}


def test_a_network_of_unknown_origin_is_not_overwritten(folder, tmp_path):
    tiny.save(tmp_path / "network", tiny.REGRESSOR)
    with pytest.raises(UserError, match="no config.json"):
        train_on(folder, tmp_path)


def test_a_config_that_failed_before_anything_was_saved_may_be_corrected(whole, folder, tmp_path):
    with pytest.raises(UserError, match="no longer finite after step 1; no checkpoint"):
        train_on(folder, tmp_path, **{**HOT, "evaluate_every": 9}, save_every=1)
    assert not (tmp_path / "network").exists()
    assert train_on(folder, tmp_path, **CONFIG).metrics == whole[1].metrics


def test_a_loss_that_is_not_finite_stops_the_run(folder, tmp_path):
    with pytest.raises(UserError, match="step [12]; no checkpoint was saved before"):
        train_on(folder, tmp_path, **{**HOT, "steps": 2})
    assert not (tmp_path / "network").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"network": {"model": {}, "image_size": 64}}, "config.network.kind is missing"),
        ({"batch_size": 4, "accumulate": 3}, "batch_size=4 must be a multiple of"),
        ({"objective": {"adversary": 1.0}}, "config.objective.adversary: did you mean .*sarial?"),
        ({"init": "nowhere"}, "config.init: There is no network"),
        ({"network": {"kind": "latent_dpm", "model": {}}}, "config.objective.diffae"),
    ],
)
def test_errors(folder, tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        train_on(folder, tmp_path, **{**CONFIG, **change})


def test_a_workdir_among_the_images_is_refused(folder):
    with pytest.raises(UserError, match=r"run lies in config\.data\.path"):
        train_on(folder, folder / "images" / "run")
    assert not (folder / "images" / "run").exists()


def test_a_latent_dpm_keeps_the_statistics_of_its_codes_and_its_diffae(folder, tmp_path):
    small = {**tiny.DIFFAE, "image_size": SIZE}
    diffae = tiny.save(tmp_path / "diffae", small)
    regressor = tiny.save(tmp_path / "regressor", NETWORK)
    latent = {
        "kind": "latent_dpm",
        "model": {"hidden": 16, "layers": 3},
        "diffusion": {"steps": 100, "schedule": "const0.008", "variance": "fixed_large"},
    }
    config = dict(
        network=latent, objective={"diffae": diffae, "sample_steps": 2, "decode_steps": 2},
        evaluation={"images": 4, "regressor": regressor},
    )  # fmt: skip
    summary = train_on(folder, tmp_path / "latent", **config, steps=1)
    assert set(summary.metrics) == {"loss", "frechet_distance"}
    assert summary.metrics["frechet_distance"] > 0
    network = load_network(tmp_path / "latent" / "network")
    assert network.module.channels == 8 and network.description["image_size"] == SIZE
    stats = network.variables["stats"]
    assert (stats["z_std"] > 0).all() and jnp.any(stats["z_mean"] != 0)
    assert len(list((tmp_path / "latent" / "pictures").iterdir())) == 1

    images = sample_images(load_network(diffae), network, 2, code_steps=2, decode_steps=2)
    assert images.shape == (2, SIZE, SIZE, 3) and 0 <= images.min() <= images.max() <= 1
    with pytest.raises(UserError, match="kind latent_dpm, not a resnet"):
        sample_images(load_network(diffae), load_network(regressor), 2)

    tiny.save(tmp_path / "diffae", small, seed=1)
    with pytest.raises(UserError, match="another content of config.objective.diffae"):
        train_on(folder, tmp_path / "latent", **config)


def test_a_ddpm_is_told_of_the_geometry_of_augmented_images(folder):
    network = {**tiny.DDPM, "image_size": SIZE}
    config = config_on(folder, network=network, augment={"geometric": 0.9})
    task = make_task(config, 4, parallel.data_mesh())
    assert task.network["model"]["geometry_channels"] == GEOMETRY
    state = create_state(tiny.variables(task.network), optax.sgd(1.0))
    before = state.variables["params"]["geometry_embed"]["kernel"]
    update = make_update(task.objective.loss, optax.sgd(1.0), 0.5, 9, 0, task.prepare, accumulate=2)
    state, _ = jax.jit(update)(state, task.held_out.inputs[:4], task.held_out.labels[:4])
    assert jnp.any(state.variables["params"]["geometry_embed"]["kernel"] != before)
    # In use it is as any other: nothing is said of a geometry.
    module, x, t = build_module(task.network), jnp.zeros((1, SIZE, SIZE, 3)), jnp.zeros(1)
    assert jax.eval_shape(module.apply, state.ema, x, t).shape == (1, SIZE, SIZE, 6)
