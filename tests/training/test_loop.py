import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffcf_jax.checkpoint.network import build_module
from diffcf_jax.checkpoint.store import load_network, save_network
from diffcf_jax.data.squares import Squares
from diffcf_jax.errors import UserError
from diffcf_jax.files import encode_png
from diffcf_jax.flops import count_flops
from diffcf_jax.sampling import sample_images
from diffcf_jax.training.initial import initial_variables
from diffcf_jax.training.loop import train
from tests import tiny

CONFIG = dict(
    network=tiny.REGRESSOR,
    data={"name": "squares"},
    optimizer={"learning_rate": 1e-3},
    batch_size=4,
    ema_decay=0.9,
    augment={"flips": True},
    seed=0,
    log_every=1,
    evaluate_every=4,
    save_every=2,
    objective={},
    evaluation={"images": 6},
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("whole")
    return workdir, train(workdir, steps=4, **CONFIG)


def lines(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").open()]


def test_what_a_training_leaves(whole):
    workdir, summary = whole
    network = load_network(workdir / "network")
    labels = np.arange(256) / 255  # of which the squares draw uniformly
    assert network.description["mean"] == pytest.approx(labels.mean(), abs=0.02)
    assert network.description["scale"] == pytest.approx(labels.std(), abs=0.02)
    assert network.description["training"]["step"] == 4
    best = load_network(workdir / "best")
    jax.tree.map(np.testing.assert_array_equal, best.variables, network.variables)
    last = lines(workdir)[-1]
    assert last["test/mae"] == summary.metrics["mae"] > 0
    assert summary.best == {"step": 4, "metrics": summary.metrics}
    assert str(workdir / "network") in str(summary) and "images a second" in str(summary)


def test_an_update_takes_two_to_three_times_the_operations_of_a_forward_pass(whole, tmp_path):
    module, variables = build_module(tiny.REGRESSOR), initial_variables(tiny.REGRESSOR, seed=0)
    images = jax.ShapeDtypeStruct((1, tiny.SIZE, tiny.SIZE, 3), jnp.float32)
    forward = count_flops(module.apply, variables, images)
    _, summary = whole
    assert 2 < summary.flops_per_second / summary.images_per_second / forward <= 3
    parts = train(tmp_path, steps=1, **CONFIG, accumulate=2)
    counts = [s.flops_per_second / s.images_per_second for s in (summary, parts)]
    assert counts[0] == pytest.approx(counts[1])

    assert summary.flop_utilisation is None and "of the peak" not in str(summary)  # of a CPU
    shown = str(dataclasses.replace(summary, flop_utilisation=0.412))
    assert " TFLOP/s, 41% of the peak)" in shown


def test_a_resumed_run_ends_like_an_uninterrupted_one(whole, tmp_path):
    train(tmp_path, steps=2, **CONFIG)
    train(tmp_path, steps=4, **{**CONFIG, "workers": 1, "log_every": 2})
    first, second = (load_network(path / "network") for path in (whole[0], tmp_path))
    jax.tree.map(np.testing.assert_array_equal, first.variables, second.variables)
    assert [line["step"] for line in lines(tmp_path) if "train/loss" in line] == [1, 2, 4]


def test_a_finished_training_renews_its_network(whole, tmp_path):
    shutil.copytree(whole[0], tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "network")  # as if killed before it was written
    summary = train(tmp_path, steps=4, **CONFIG)
    first, second = (load_network(path / "network") for path in (whole[0], tmp_path))
    jax.tree.map(np.testing.assert_array_equal, first.variables, second.variables)
    assert summary.metrics == whole[1].metrics
    with pytest.raises(UserError, match="at step 4 already"):
        train(tmp_path, steps=3, **CONFIG)


def test_another_config_in_the_workdir_is_refused(whole):
    workdir, _ = whole
    before = sorted(path.stat().st_mtime_ns for path in workdir.rglob("*"))
    other = {**tiny.REGRESSOR, "model": {**tiny.REGRESSOR["model"], "width": 8}}
    with pytest.raises(UserError, match=r"network.model.width \(4 there, 8 here\); seed \(0"):
        train(workdir, steps=4, **{**CONFIG, "network": other, "seed": 1})
    assert sorted(path.stat().st_mtime_ns for path in workdir.rglob("*")) == before


def test_a_network_of_unknown_origin_is_not_overwritten(tmp_path):
    tiny.save(tmp_path / "network", tiny.REGRESSOR)
    with pytest.raises(UserError, match="no config.json"):
        train(tmp_path, steps=2, **CONFIG)


def test_a_config_that_failed_before_anything_was_saved_may_be_corrected(whole, tmp_path):
    wrong = {**CONFIG, "optimizer": {"learning_rate": float("inf")}}
    with pytest.raises(UserError, match="no longer finite"):
        train(tmp_path, steps=4, **{**wrong, "save_every": 1, "evaluate_every": 9})
    assert train(tmp_path, steps=4, **CONFIG).metrics == whole[1].metrics


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    hot = {**CONFIG, "optimizer": {"learning_rate": float("inf")}}
    with pytest.raises(UserError, match="step [12]; no checkpoint was saved before"):
        train(tmp_path / "a", steps=2, **hot)
    with pytest.raises(UserError, match="no longer finite after step 1; no checkpoint"):
        train(tmp_path / "b", steps=2, **{**hot, "save_every": 1})
    assert not (tmp_path / "b" / "network").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"log_every": 0}, "config.log_every=0 must be at least 1"),
        ({"evaluate_every": 0}, "config.evaluate_every=0 must be at least 1"),
        ({"save_every": 0}, "config.save_every=0 must be at least 1"),
        ({"evaluation": {"images": 0}}, "config.evaluation.images=0 must be at least 1"),
        ({"network": {"model": {}, "image_size": 64}}, "config.network.kind is missing"),
        ({"batch_size": 4, "accumulate": 3}, "batch_size=4 must be a multiple of"),
        ({"precision": "half"}, "precision 'half'"),
        ({"augment": {"flip": True}}, "augment.flip;"),
        ({"optimizer": {"rate": 1.0}}, "config.optimizer"),
        ({"objective": {"adversary": 1.0}}, "config.objective does not fit a resnet"),
        ({"init": "nowhere"}, "config.init: There is no network"),
        ({"network": {"kind": "latent_dpm", "model": {}}}, "config.objective.diffae"),
    ],
)
def test_errors(tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        train(tmp_path, steps=2, **{**CONFIG, **change})


def test_a_classifier_becomes_a_regressor(tmp_path):
    model = {"growth": 4, "blocks": (1, 1), "init_features": 4}
    network = {"kind": "densenet", "model": model, "image_size": 64}
    classifier = {**network, "model": {**model, "outputs": 3}}
    given = initial_variables(classifier, seed=1)
    save_network(tmp_path / "classifier", classifier, given)
    made = initial_variables(network, seed=0, init=str(tmp_path / "classifier"))
    assert made["params"]["classifier"]["kernel"].shape[1] == 1
    for name in set(made["params"]) - {"classifier"}:
        jax.tree.map(np.testing.assert_array_equal, made["params"][name], given["params"][name])
    jax.tree.map(np.testing.assert_array_equal, made["batch_stats"], given["batch_stats"])

    wider = {**network, "model": {**model, "growth": 8}}
    with pytest.raises(UserError, match=r"norm2/mean has shape \(16,\) instead of \(32,\)"):
        initial_variables(wider, seed=0, init=str(tmp_path / "classifier"))
    deeper = {**network, "model": {**model, "blocks": (1, 2)}}
    with pytest.raises(UserError, match="denseblock2_denselayer2/.* is missing"):
        initial_variables(deeper, seed=0, init=str(tmp_path / "classifier"))
    with pytest.raises(UserError, match="config.init is a densenet, not a resnet"):
        initial_variables(tiny.REGRESSOR, seed=0, init=str(tmp_path / "classifier"))


def test_a_workdir_among_the_images_is_refused(tmp_path):
    data = {"name": "labelled", "path": str(tmp_path), "held_out": 0.3}
    with pytest.raises(UserError, match=r"run lies in config\.data\.path"):
        train(tmp_path / "run", steps=1, **{**CONFIG, "data": data})


def test_a_latent_dpm_keeps_the_statistics_of_its_codes(tmp_path):
    diffae = tiny.save(tmp_path / "diffae", tiny.DIFFAE)
    regressor = tiny.save(tmp_path / "regressor", tiny.REGRESSOR)
    (tmp_path / "images").mkdir()
    for name, image in zip("abcdefghijkl", Squares("validation", 12).images, strict=True):
        (tmp_path / "images" / f"{name}.png").write_bytes(encode_png(image))
    latent = {
        "kind": "latent_dpm",
        "model": {"hidden": 16, "layers": 3},
        "diffusion": {"steps": 100, "schedule": "const0.008", "variance": "fixed_large"},
    }
    summary = train(
        tmp_path / "latent", steps=1, **{
            **CONFIG, "network": latent, "augment": {},
            "data": {"name": "labelled", "path": str(tmp_path / "images"), "held_out": 0.3},
            "objective": {"diffae": diffae, "sample_steps": 2, "decode_steps": 2},
            "evaluation": {"images": 4, "regressor": regressor},
        },
    )  # fmt: skip
    assert set(summary.metrics) == {"loss", "frechet_distance"}
    assert summary.metrics["frechet_distance"] > 0
    network = load_network(tmp_path / "latent" / "network")
    assert network.module.channels == 8 and network.description["image_size"] == 64
    stats = network.variables["stats"]
    assert (stats["z_std"] > 0).all() and jnp.any(stats["z_mean"] != 0)
    assert len(list((tmp_path / "latent" / "pictures").iterdir())) == 1

    images = sample_images(load_network(diffae), network, 2, code_steps=2, decode_steps=2)
    assert images.shape == (2, 64, 64, 3) and 0 <= images.min() <= images.max() <= 1
    with pytest.raises(UserError, match="kind latent_dpm, not a resnet"):
        sample_images(load_network(diffae), load_network(regressor), 2)
