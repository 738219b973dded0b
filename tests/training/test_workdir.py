"""What a training's folder keeps through stops, kills and changes of what the config leads to."""

import contextlib
import json
import shutil

import jax
import numpy as np
import pytest

from diffcf_jax.checkpoint.store import load_network
from diffcf_jax.errors import Preempted, UserError
from diffcf_jax.files import encode_png
from diffcf_jax.training import loop
from diffcf_jax.training.loop import train
from tests import tiny

SIZE = 16
LATENT = {
    "kind": "latent_dpm",
    "model": {"hidden": 8, "layers": 2},
    "diffusion": {"steps": 100, "schedule": "const0.008", "variance": "fixed_large"},
}


@pytest.fixture
def folder(tmp_path):
    """Images and their labels, config of a training on them, and where it goes."""
    (tmp_path / "images").mkdir()
    for i in range(12):
        pixels = np.full((SIZE, SIZE, 3), 20 * i, np.uint8)
        (tmp_path / "images" / f"{i:02d}.png").write_bytes(encode_png(pixels))
    write_labels(tmp_path, range(12))
    return tmp_path


def write_labels(folder, labels):
    rows = [f"{i:02d}.png,{y}\n" for i, y in enumerate(labels)]
    (folder / "labels.csv").write_text("name,y\n" + "".join(rows))


def train_on(folder, **changes):
    model = {**tiny.REGRESSOR["model"], "stem_stride": 1}
    config = dict(
        network={"kind": "resnet", "model": model, "image_size": SIZE},
        data={
            "name": "labelled", "path": str(folder / "images"),
            "labels": str(folder / "labels.csv"), "held_out": 0.3,
        },
        optimizer={"learning_rate": 1e-2}, batch_size=4, ema_decay=0.5, augment={},
        seed=0, log_every=1, evaluate_every=2, save_every=2, objective={}, steps=6,
    )  # fmt: skip
    return train(folder / "run", **{**config, **changes})


def evaluations(folder):
    rows = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").open()]
    return {row["step"]: row["test/mae"] for row in rows if "test/mae" in row}


def made(folder, name):
    return json.loads((folder / "run" / name / "network.json").read_text())["training"]


def stop_after(monkeypatch, last):
    @contextlib.contextmanager
    def requests():
        yield lambda step: step == last

    monkeypatch.setattr(loop, "stop_requests", requests)


def test_a_stop_at_an_evaluation_loses_neither_it_nor_the_best(folder, monkeypatch):
    whole = train_on(folder)
    wanted = evaluations(folder)
    assert set(wanted) == {2, 4, 6}
    (folder / "run").rename(folder / "whole")
    with monkeypatch.context() as patch:
        stop_after(patch, 4)
        with pytest.raises(Preempted):
            train_on(folder)
    found = made(folder, "network")
    assert (found["step"], found["metrics_step"]) == (4, 2)
    assert found["metrics"]["mae"] == wanted[2]
    assert train_on(folder).best == whole.best
    assert evaluations(folder) == wanted
    assert made(folder, "network")["metrics_step"] == 6


@pytest.mark.parametrize("changed", ["label", "image"])
def test_other_data_are_refused(folder, changed):
    train_on(folder, steps=2)
    before = (folder / "labels.csv").read_text()
    if changed == "label":
        write_labels(folder, [5, *range(1, 12)])
    else:
        write_labels(folder, range(11))
        (folder / "images" / "11.png").rename(folder / "11.png")
    with pytest.raises(UserError, match="was begun with another content of config.data .*put it b"):
        train_on(folder)
    (folder / "labels.csv").write_text(before)
    if changed == "image":
        (folder / "11.png").rename(folder / "images" / "11.png")
    assert train_on(folder).step == 6


def test_another_diffae_is_refused(folder):
    small = {**tiny.DIFFAE, "image_size": SIZE}
    diffae = tiny.save(folder / "diffae", small)
    options = {"diffae": diffae, "sample_steps": 2, "decode_steps": 2}
    changes = {"network": LATENT, "objective": options, "evaluate_every": 9}
    train_on(folder, **changes, steps=1)
    tiny.save(folder / "diffae", small, seed=1)
    with pytest.raises(UserError, match="another content of config.objective.diffae"):
        train_on(folder, **changes)


def test_a_workdir_of_an_earlier_version_resumes(folder):
    train_on(folder, steps=2)
    file = folder / "run" / "config.json"
    config = json.loads(file.read_text())
    assert set(config.pop("contents")) == {"data"}
    file.write_text(json.dumps(config))
    assert train_on(folder).step == 6


def test_a_network_that_a_kill_moved_away_is_the_best_again(folder):
    best = train_on(folder).best
    for name in ("network", "best"):
        (folder / "run" / name).rename(folder / "run" / f".{name}.older")
    assert train_on(folder).best == best
    assert made(folder, "best")["step"] == best["step"]


def test_a_damaged_checkpoint_costs_only_what_came_after_the_one_before(folder, caplog):
    train_on(folder)
    wanted = load_network(folder / "run" / "network").variables
    (metadata,) = (folder / "run/checkpoints/6").glob("*/_METADATA")
    metadata.write_text(metadata.read_text()[:50])
    train_on(folder)
    assert "6 is damaged" in caplog.text
    found = load_network(folder / "run" / "network").variables
    jax.tree.map(np.testing.assert_array_equal, found, wanted)
    assert {path.name for path in (folder / "run/checkpoints").iterdir()} == {"4", "6", "6.damaged"}


def test_a_resumed_run_does_not_need_where_it_started_from(folder):
    model = {**tiny.REGRESSOR["model"], "stem_stride": 1}
    network = {"kind": "resnet", "model": model, "image_size": SIZE}
    init = tiny.save(folder / "init", network)
    train_on(folder, init=init, steps=2)
    shutil.rmtree(init)
    assert train_on(folder, init=init).step == 6


@pytest.mark.parametrize("name", ["config.json", "results.jsonl"])
def test_results_of_another_program_are_not_overwritten(folder, name):
    (folder / "run").mkdir()
    (folder / "run" / name).write_text('{"method": {"name": "ac_re"}}')
    with pytest.raises(UserError, match="run holds results, but not those of a training"):
        train_on(folder)
    assert [path.name for path in (folder / "run").iterdir()] == [name]


def test_a_file_is_no_workdir(folder):
    (folder / "run").write_text("")
    with pytest.raises(UserError, match="cannot write .*run.*choose another --workdir"):
        train_on(folder)
