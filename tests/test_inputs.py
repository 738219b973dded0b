import jax
import pytest

from diffcf_jax.errors import UserError
from diffcf_jax.inputs import (
    abstract_networks,
    apply_of,
    load_networks,
    parse_targets,
    regressor_unit,
)
from diffcf_jax.units import Unit
from tests import tiny
from tests.regressors import onnx_files


def test_parse_targets():
    assert parse_targets("") == []
    assert parse_targets("0.2, -3,1e2") == [0.2, -3.0, 100.0]
    assert parse_targets("(0.5)") == [0.5]
    assert parse_targets("0.5,0.2,0.50,0.2000000001") == [0.5, 0.2]  # the same in float32
    for text in ("nan", "inf", "a", "0.1;0.2"):
        with pytest.raises(UserError, match="not a finite number"):
            parse_targets(text)


def test_missing_checkpoints_are_told_with_what_makes_them(tmp_path):
    generator = {
        "checkpoint": str(tmp_path / "ddpm"),
        "original": "ddpm.pt of https://example.org",
        "convert": "ddpm.pt --kind ddpm",
    }
    oracle = {**generator, "checkpoint": str(tmp_path / "oracle")}
    regressor = {"checkpoint": tiny.save(tmp_path / "regressor", tiny.REGRESSOR)}
    with pytest.raises(UserError) as caught:
        load_networks(generator, regressor, oracle)
    text = str(caught.value)
    assert f"config.generator.checkpoint={tmp_path / 'ddpm'} is missing\n" in text
    assert f"config.oracle.checkpoint={tmp_path / 'oracle'} is missing, only for" in text
    assert "config.regressor" not in text and "https://example.org" in text
    command = "diffcf convert ddpm.pt --kind ddpm --out"
    assert f"{command} {tmp_path / 'ddpm'}\n" in text
    model = {"model": str(tmp_path / "age.onnx"), "fetch": "faces"}
    with pytest.raises(UserError, match=r"config.regressor.model=.*age.onnx is missing in .*fetch"):
        load_networks(regressor, model)
    # What the config does not know how to make is one sentence.
    with pytest.raises(UserError, match=r"^config.generator.checkpoint: There is no network"):
        load_networks({"checkpoint": str(tmp_path / "ddpm")}, regressor)
    # The oracle alone is nothing that explaining needs.
    tiny.save(tmp_path / "ddpm", tiny.DDPM)
    assert load_networks(generator, regressor, oracle)[0].kind == "ddpm"


def shapes(network):
    return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), network.variables)


def test_networks_without_their_weights(tmp_path):
    generator = {"checkpoint": tiny.save(tmp_path / "ddpm", tiny.DDPM)}
    regressor = {"checkpoint": tiny.save(tmp_path / "regressor", tiny.REGRESSOR)}
    loaded = load_networks(generator, regressor)
    for whole, abstract in zip(loaded, abstract_networks(generator, regressor), strict=True):
        assert shapes(whole) == shapes(abstract)
        assert whole.description == abstract.description
    missing = {"checkpoint": str(tmp_path / "missing")}
    with pytest.raises(UserError, match=r"^config.generator.checkpoint: There is no network"):
        abstract_networks(missing, regressor)
    with pytest.raises(UserError, match="two checkpoints of one image size"):
        abstract_networks({**missing, "convert": "x.pt --kind ddpm --preset celebahq"}, regressor)


def test_networks_that_were_not_converted_yet_are_known_by_their_presets(tmp_path):
    missing = str(tmp_path / "missing")
    generator, regressor = abstract_networks(
        {"checkpoint": missing, "convert": "x.pt --kind diffae --preset ffhq256"},
        {"checkpoint": missing, "convert": "y --kind densenet-regressor --preset celebahq"},
    )
    count = sum(leaf.size for leaf in jax.tree.leaves(generator.variables))
    assert round(count / 1e6, 1) == 168.5
    assert regressor.kind == "densenet" and regressor.description["image_size"] == 256
    count = sum(leaf.size for leaf in jax.tree.leaves(regressor.variables["params"]))
    assert 6.9e6 < count < 7.1e6  # densenet121 without the 1000 classes


def test_a_regressor_may_be_a_model_from_outside(tmp_path):
    generator = {"checkpoint": tiny.save(tmp_path / "ddpm", tiny.DDPM)}
    onnx_files.convnet(tmp_path / "m.onnx")
    model = {
        "checkpoint": str(tmp_path / "missing"), "model": str(tmp_path / "m.onnx"),
        "preprocess": "range=255", "output": "column=1", "unit": "years", "mean": 40.0,
        "scale": None,
    }  # fmt: skip
    for load in (load_networks, abstract_networks):
        _, regressor = load(generator, model)
        assert str(regressor.preprocess) == "size=8x8 range=255 layout=nchw"
        assert regressor_unit(regressor, model) == Unit("years", 40.0, 1.0)
        assert apply_of(regressor) == regressor.apply
    with pytest.raises(UserError, match=r"^config.regressor.model: .* has 3 outputs per image"):
        load_networks(generator, {**model, "output": ""})
    with pytest.raises(UserError, match=r"^config.regressor.model: preprocess has 'x': give"):
        load_networks(generator, {**model, "preprocess": "x"})
