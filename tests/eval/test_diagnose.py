import dataclasses
import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffcf_jax.checkpoint.network import build_module, init_variables
from diffcf_jax.diffusion.sampler import bind, noise_and_denoise
from diffcf_jax.diffusion.schedule import make_diffusion
from diffcf_jax.errors import UserError
from diffcf_jax.units import Unit
from eval.diagnose import diffae
from eval.diagnose.__main__ import diagnose
from eval.diagnose.diffae import check_codes, check_steps, check_swap, linear_r2
from eval.diagnose.subject import Subject, open_subject
from eval.diagnose.tau import f_tau
from eval.page import Plot, format_finding, plot_svg, write_page
from tests import tiny


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("networks")
    names = {"ddpm": tiny.DDPM, "diffae": tiny.DIFFAE, "regressor": tiny.REGRESSOR}
    return {name: tiny.save(folder / name, network) for name, network in names.items()}


def config(networks, generator, **method):
    return {
        "generator": {"checkpoint": networks[generator]},
        "regressor": {"checkpoint": networks["regressor"], "unit": "years", "scale": 100.0},
        "data": {"name": "squares", "path": "", "limit": 12, "convert": False},
        "method": {"threshold": 5.0, **method},
        "seed": 0,
    }


def test_a_ddpm(networks, tmp_path):
    subject = open_subject(config(networks, "ddpm", respacing="4", tau=2), 3)
    assert subject.names == ["lower_000.png", "lower_005.png", "lower_011.png"]
    (finding,) = diagnose(subject)
    assert [row["tau"] for row in finding.table.rows] == [1, 2, 3, 4]
    assert all(row["pixel_change"] > 0 for row in finding.table.rows)
    assert "(years)" in finding.plots[0].title
    page = write_page(tmp_path, "diagnosis", "A diagnosis", [finding])
    assert page.read_text().count("<svg") == 2 and "http:" not in page.read_text()
    assert json.loads((tmp_path / "diagnosis.json").read_text())["tau"]["rows"]
    assert (tmp_path / "tau.png").is_file()
    assert len(format_finding(finding).splitlines()) == 8


def test_a_diffae(networks, tmp_path, monkeypatch):
    monkeypatch.setattr(diffae, "INVERSION_STEPS", (5, 30))  # no stride takes 30 of 100
    monkeypatch.setattr(diffae, "DECODE_STEPS", ())
    subject = open_subject(config(networks, "diffae", inversion_steps=2, decode_steps=2), 3)
    steps, swap, codes = diagnose(subject)
    found = [(row["inversion"], row["decoding"]) for row in steps.table.rows]
    assert found == [("none", 2), (2, 2), (5, 2)]
    assert np.isfinite(swap.table.values["share"])
    assert codes.table.values["images"] == 12 and codes.table.values["channels"] == 8
    write_page(tmp_path, "diagnosis", "A diagnosis", [steps, swap, codes])
    assert {path.name for path in tmp_path.glob("*.png")} == {"reconstruction.png", "swap.png"}


def test_f_tau_is_noise_and_denoise():
    module = build_module(tiny.DDPM)
    variables = init_variables(tiny.DDPM, jax.random.key(0))
    process = make_diffusion(100, respacing="5")
    images, key = jax.random.uniform(jax.random.key(1), (2, 64, 64, 3)), jax.random.key(2)

    @jax.jit
    def both(variables, images, tau):
        order = [5, 2, 1]  # the noise of the start and of timesteps 2 and 1
        noises = [jax.random.normal(jax.random.fold_in(key, i), images.shape) for i in order]
        model = bind(module.apply, variables)
        wanted = noise_and_denoise(process, model, 2 * images - 1, jnp.stack(noises))
        return f_tau(module, process, variables, images, tau, key), wanted / 2 + 0.5

    np.testing.assert_allclose(*both(variables, images, 3), atol=1e-5)


class Analytic:
    """An autoencoder whose images are the code's value plus the noise's, weighted."""

    def __init__(self, weight):
        self.weight = weight

    def encode(self, images):
        return jnp.asarray(images).mean((1, 2, 3))[:, None]

    def invert(self, images, z_sem, steps):
        return jnp.asarray(images)

    def decode(self, z_sem, x_T, steps):
        images = self.weight * z_sem[:, :, None, None] + (1 - self.weight) * x_T
        return np.asarray(images)


@pytest.fixture
def subject():
    images = np.linspace(0.1, 0.9, 8, dtype=np.float32)[:, None, None, None] * np.ones((1, 4, 4, 3))
    return Subject(
        generator=types.SimpleNamespace(kind="analytic"),
        diffusion=make_diffusion(100),
        read=lambda images: np.asarray(images).mean((1, 2, 3)),
        unit=Unit(),
        method={"inversion_steps": 10, "decode_steps": 10},
        images=images.astype(np.float32),
        names=[f"{i}.png" for i in range(8)],
        more_images=images.astype(np.float32),
        seed=0,
    )


@pytest.mark.parametrize("weight", [1.0, 0.25, 0.0])
def test_the_swap_tells_what_carries_the_label(subject, weight):
    finding = check_swap(subject, Analytic(weight))
    assert finding.table.values["share"] == pytest.approx(weight, abs=1e-5)
    assert all(row["x_T of"] != row["z_sem of"] for row in finding.table.rows)


def test_what_is_lost(subject):
    rows = check_steps(subject, Analytic(0.5)).table.rows
    errors = {(row["inversion"], row["decoding"]): row["error"] for row in rows}
    assert errors[10, 10] == pytest.approx(0, abs=1e-6)  # grey images lose nothing
    assert errors["none", 10] > 0.1
    values = check_codes(subject, Analytic(0.5)).table.values
    assert values["linear_r2"] == pytest.approx(1, abs=1e-3) and values["dimensions"] == 1
    z = subject.images.mean((1, 2, 3))
    pairs = [abs(a - b) ** 2 for i, a in enumerate(z) for b in z[:i]]
    assert values["distance"] == pytest.approx(np.sqrt(np.mean(pairs)), rel=1e-4)


def test_linear_r2():
    random = np.random.default_rng(0)
    z = random.normal(size=(60, 20))
    z -= z.mean(0)
    assert linear_r2(z, z @ random.normal(size=20)) > 0.95
    assert linear_r2(z, random.normal(size=60)) < 0.2
    with pytest.raises(UserError, match="same for every image"):
        linear_r2(z, np.ones(60))


def test_plots():
    plot = Plot("y", {"a": [(1, 2.0), (10, 3.0)], "b": [(1, 2.5)]}, "x", log=True)
    assert plot_svg(plot).count("<polyline") == 2
    flat = dataclasses.replace(plot, series={"a": [(1, 0.0)]}, level=("level", 0.0), mark=1)
    assert "nan" not in plot_svg(flat)


def test_errors(networks):
    with pytest.raises(UserError, match="config.method has no tau"):
        diagnose(open_subject(config(networks, "ddpm"), 2))
    with pytest.raises(UserError, match="at least 2 images"):
        open_subject(config(networks, "ddpm", tau=1), 1)
    with pytest.raises(UserError, match="is a resnet; a ddpm or a diffae"):
        diagnose(open_subject(config(networks, "regressor"), 2))
