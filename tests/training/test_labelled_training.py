"""A regressor of a user's own labelled images, from the folder to the stored network."""

import os
import signal
import time

import jax
import numpy as np
import pytest
from PIL import Image

from diffcf_jax.checkpoint.store import load_network
from diffcf_jax.data.labelled import open_labelled
from diffcf_jax.errors import UserError
from tests import tiny
from tests.training.runs import NETWORK, SIZE, command_line, curve, finish, start, train_on

COUNT = 100
CONFIG = dict(
    network={**NETWORK, "unit": "years"}, augment={"mirror": True}, steps=3, evaluate_every=3,
    save_every=3,
)  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    """Images in nested folders, of unequal sizes, one of them grey, and their table."""
    lines = ["name,y"]
    for i in range(COUNT):
        age = 20 + i % 60
        path = tmp_path / "images" / f"{2020 + i % 2}" / "a" / f"{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(i).integers(0, 3 * age, (18 + i % 7, 40 - i % 5, 3), np.uint8)
        Image.fromarray(noise).convert("L" if i == 4 else "RGB").save(path)
        lines.append(f"{path.relative_to(tmp_path / 'images')},{age}")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    return tmp_path


def test_labels_in_years(folder):
    summary = train_on(folder, **CONFIG)
    network = load_network(folder / "run" / "network")
    trained_on, held_out = open_labelled(folder / "images", folder / "labels.csv", SIZE, 0.3)
    assert len(trained_on) + len(held_out) == COUNT
    mean, scale = (network.description[name] for name in ("mean", "scale"))
    assert (mean, scale) == pytest.approx((trained_on.labels.mean(), trained_on.labels.std()))
    assert network.description["unit"] == "years" and scale > 10

    images = np.stack([record.image for record in held_out]) / np.float32(255)
    predictions = mean + scale * np.asarray(
        jax.jit(network.module.apply)(network.variables, images)
    )
    mae = np.abs(predictions - held_out.labels).mean()
    assert summary.metrics["mae"] == pytest.approx(mae, rel=1e-3) and mae > 1
    assert f"mae {summary.best['metrics']['mae']:.4g} after 3 updates" in str(summary)
    assert summary.skipped == 0


def spoil(folder, part, *rows):
    """Makes files of the training (0) or held-out (1) images unreadable; returns their paths."""
    data = open_labelled(folder / "images", folder / "labels.csv", SIZE, 0.3)[part]
    paths = [folder / "images" / data.names[row] for row in rows]
    for path in paths:
        path.write_bytes(b"no image")
    return paths


def test_held_out_files_that_cannot_be_read_are_counted_and_named(folder, caplog):
    (path,) = spoil(folder, 1, 0)
    assert train_on(folder, **CONFIG).skipped == 1
    assert [str(path) in message for message in caplog.messages if "Skipped" in message] == [True]
    spoil(folder, 1, 0, 1)
    with pytest.raises(UserError, match="2 of the 100 images cannot be read, more than 1%"):
        train_on(folder, **CONFIG)


def test_files_that_a_latent_dpm_cannot_read_stop_it(folder):
    latent = {
        "kind": "latent_dpm",
        "model": {"hidden": 16, "layers": 2},
        "diffusion": {"steps": 100, "schedule": "const0.008", "variance": "fixed_large"},
    }
    diffae = tiny.save(folder / "diffae", {**tiny.DIFFAE, "image_size": SIZE})
    objective = {"diffae": diffae, "sample_steps": 2, "decode_steps": 2}
    spoil(folder, 0, 0, 50)  # not in one batch
    with pytest.raises(UserError, match="2 of the 100 images cannot be read, more than 1%"):
        train_on(folder, network=latent, objective=objective)


def test_sigterm_to_all_processes_while_the_workers_read(folder):
    for path in (folder / "images").rglob("*.png"):
        Image.open(path).resize((800, 800)).save(path, "jpeg")  # whose reading takes longest
    process = start(folder / "run", command_line(folder, "--config.workers=1"))
    while not (folder / "run" / "metrics.jsonl").exists() or len(curve(folder / "run")) < 2:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGTERM)
    _, told = finish(process, status=75)
    assert "run the same command again" in told
    assert load_network(folder / "run" / "network").description["training"]["step"] >= 2
