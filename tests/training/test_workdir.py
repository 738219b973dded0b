"""What a training's folder keeps through stops, kills and changes of what the config leads to."""

import contextlib
import json
import shutil

import jax
import numpy as np
import pytest

from diffcf_jax.checkpoint.store import load_network
from diffcf_jax.errors import Preempted, UserError
from diffcf_jax.training import loop
from diffcf_jax.workdir import locked
from tests import tiny
from tests.training.runs import NETWORK, train_on, write_images, write_labels


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("data"), 12)


@pytest.fixture(scope="module")
def trained(data):
    """A training of two updates, and one that goes on from there to six; with their summary."""
    train_on(data, steps=2)
    shutil.copytree(data / "run", data / "begun")
    return data / "begun", data / "run", train_on(data)


@pytest.fixture
def folder(data, tmp_path):
    """Its own copy of the images, with no training yet."""
    for name in ("images", "labels.csv"):
        (shutil.copytree if name == "images" else shutil.copy)(data / name, tmp_path / name)
    return tmp_path


@pytest.fixture
def begun(data, folder, trained):
    return copy_run(trained[0], data, folder)


@pytest.fixture
def finished(data, folder, trained):
    return copy_run(trained[1], data, folder)


def copy_run(run, data, folder):
    """Moves a training to a copy of its images; returns that."""
    shutil.copytree(run, folder / "run")
    file = folder / "run" / "config.json"
    file.write_text(file.read_text().replace(str(data), str(folder)))
    return folder


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


def test_a_stop_at_an_evaluation_loses_neither_it_nor_the_best(data, begun, trained, monkeypatch):
    wanted = evaluations(data)
    assert set(wanted) == {2, 4, 6}
    with monkeypatch.context() as patch:
        stop_after(patch, 4)
        with pytest.raises(Preempted):
            train_on(begun)
    found = made(begun, "network")
    assert (found["step"], found["metrics_step"]) == (4, 2)
    assert found["metrics"]["mae"] == wanted[2]
    assert train_on(begun).best == trained[2].best
    assert evaluations(begun) == wanted
    assert made(begun, "network")["metrics_step"] == 6


@pytest.mark.parametrize("changed", ["label", "image"])
def test_other_data_are_refused(begun, changed):
    before = (begun / "labels.csv").read_text()
    if changed == "label":
        write_labels(begun, [5, *range(1, 12)])
    else:
        write_labels(begun, range(11))
        (begun / "images" / "011.png").rename(begun / "011.png")
    with pytest.raises(UserError, match="was begun with another content of config.data .*put it b"):
        train_on(begun)
    (begun / "labels.csv").write_text(before)
    if changed == "image":
        (begun / "011.png").rename(begun / "images" / "011.png")
    assert train_on(begun, steps=3).step == 3


def test_a_workdir_of_an_earlier_version_resumes(begun, trained):
    file = begun / "run" / "config.json"
    config = json.loads(file.read_text())
    assert set(config.pop("contents")) == {"data"}
    given = {  # earlier versions wrote what they were given
        "optimizer": {"learning_rate": 1e-2}, "augment": {}, "evaluation": None,
    }  # fmt: skip
    file.write_text(json.dumps({**config, **given}))
    assert train_on(begun).metrics == trained[2].metrics
    with pytest.raises(UserError, match=r"optimizer.clip \(None there, 1.0 here\)"):
        train_on(begun, optimizer={"learning_rate": 1e-2, "clip": 1.0})


def test_a_second_run_is_kept_out(begun):
    with (
        locked(begun / "run"),
        pytest.raises(UserError, match=f"Another run works in {begun / 'run'}: wait"),
    ):
        train_on(begun)
    assert made(begun, "network")["step"] == 2


def test_a_network_that_a_kill_moved_away_is_the_best_again(finished, trained):
    best = trained[2].best
    for name in ("network", "best"):
        (finished / "run" / name).rename(finished / "run" / f".{name}.older")
    assert train_on(finished).best == best
    assert made(finished, "best")["step"] == best["step"]


def test_a_damaged_checkpoint_costs_only_what_came_after_the_one_before(finished, caplog):
    run = finished / "run"
    wanted = load_network(run / "network").variables
    (metadata,) = (run / "checkpoints/6").glob("*/_METADATA")
    metadata.write_text(metadata.read_text()[:50])
    train_on(finished)
    assert "6 is damaged" in caplog.text
    found = load_network(run / "network").variables
    jax.tree.map(np.testing.assert_array_equal, found, wanted)
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"4", "6", "6.damaged"}


def test_a_resumed_run_does_not_need_where_it_started_from(folder):
    init = tiny.save(folder / "init", NETWORK)
    train_on(folder, init=init, steps=2)
    shutil.rmtree(init)
    assert train_on(folder, init=init, steps=3).step == 3


@pytest.mark.parametrize("name", ["config.json", "results.jsonl"])
def test_results_of_another_program_are_not_overwritten(folder, name):
    (folder / "run").mkdir()
    (folder / "run" / name).write_text('{"method": {"name": "ac_re"}}')
    with pytest.raises(UserError, match="run holds results, but not those of a training"):
        train_on(folder)
    assert {path.name for path in (folder / "run").iterdir()} - {".lock"} == {name}


def test_a_file_is_no_workdir(folder):
    (folder / "run").write_text("")
    with pytest.raises(UserError, match="cannot write .*run.*choose another folder"):
        train_on(folder)
