"""Importing the originals' checkpoints: every kind, full-size keys, and what must be refused."""

import ast
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from diffcf_jax.checkpoint.convert import _typed, import_network, main, read_flags
from diffcf_jax.checkpoint.network import abstract_variables
from diffcf_jax.checkpoint.original_flags import ORIGINALS
from diffcf_jax.checkpoint.store import load_network
from diffcf_jax.checkpoint.torch_keys import PREFIXES, leaves, torch_key, torch_shape
from diffcf_jax.checkpoint.torch_reader import read_state_dict
from diffcf_jax.errors import UserError
from tests import seeded

GOLDEN = Path(__file__).parents[1] / "golden"
FORMATS = GOLDEN / "ckpt_formats"


@pytest.mark.parametrize(
    "name, kind, preset, parameters",
    [
        ("celebahq_ddpm", "ddpm", "celebahq", 138_289_926),
        ("square_ddpm_attackflags", "ddpm", "square64", 101_667_718),
        ("square_ddpm_trainscript", "ddpm", None, 92_025_731),
        ("ffhq256_autoenc", "diffae", "ffhq256", 168_492_291),
        ("ffhq128_autoenc", "diffae", "ffhq128", 128_545_155),
        ("square64_autoenc", "diffae", "square64", 90_839_235),
    ],
)
def test_full_size_networks_convert(name, kind, preset, parameters):
    lines = (GOLDEN / "keys" / f"{name}.txt").read_text().splitlines()
    original = {key: ast.literal_eval(shape) for key, shape in (s.split("\t") for s in lines)}
    # A random number for each array, repeated without taking memory
    numbers = np.random.default_rng(0).standard_normal(len(original), np.float32)
    state_dict = {
        PREFIXES[kind] + key: np.broadcast_to(number, shape)
        for number, (key, shape) in zip(numbers, original.items(), strict=True)
    }
    flags = read_flags(kind, preset, None, None)
    description, variables = import_network(kind, state_dict, flags, name)
    assert sum(a.size for a in jax.tree.leaves(variables)) == parameters
    found = {torch_key(kind, path): a for path, a in leaves(variables)}
    assert found.keys() == state_dict.keys()
    for key, array in found.items():
        assert array.ravel()[0] == array.ravel()[-1] == state_dict[key].ravel()[0]
    shapes = jax.tree.map(lambda a: a.shape, abstract_variables(description))
    assert jax.tree.map(lambda a: a.shape, variables) == shapes


@pytest.mark.parametrize(
    "kind, file, network_kind, leaf, original",
    [
        (
            "resnet-regressor", "resnet.ckpt", "resnet",
            ("layer2_0", "downsample_conv", "kernel"), "model.layer2.0.downsample.0.weight",
        ),
        (
            "densenet-regressor", "legacy_densenet.tar", "densenet",
            ("denseblock1_denselayer1", "conv2", "kernel"),
            "model.classifier.0.feat_extract.features.denseblock1.denselayer1.conv2.weight",
        ),
        (
            "vggface2", "fva.pkl", "caffe_resnet",
            ("layer1_0", "conv3", "kernel"), "layer1.0.conv3.weight",
        ),
    ],
)  # fmt: skip
def test_command_line(tmp_path, capsys, kind, file, network_kind, leaf, original):
    out = tmp_path / "network"
    assert main([str(FORMATS / file), "--kind", kind, "--out", str(out)]) == 0
    network = load_network(out)
    assert network.kind == network_kind
    assert network.description["training"] == {"converted": kind, "source": file}
    expected = read_state_dict(FORMATS / file)[original].transpose(2, 3, 1, 0)
    value = network.variables["params"]
    for part in leaf:
        value = value[part]
    np.testing.assert_array_equal(value, expected)
    # A network directory may be written again.
    assert main([str(FORMATS / file), "--kind", kind, "--out", str(out)]) == 0


def test_an_original_of_two_files(tmp_path, capsys):
    weights = seeded.state_dict(seeded.golden("lpips_alex")["shapes"])
    layers = {key: weights.pop(key) for key in list(weights) if key.startswith("lin")}
    save_file(weights, tmp_path / "alexnet.safetensors")
    save_file(layers, tmp_path / "alex.safetensors")
    alexnet, alex = str(tmp_path / "alexnet.safetensors"), str(tmp_path / "alex.safetensors")
    options = ["--kind", "lpips", "--out", str(tmp_path / "lpips")]
    assert main([alexnet, *options]) == 2 and "5 missing (lin0" in capsys.readouterr().err
    assert main([alexnet, alexnet, *options]) == 2
    assert "weights that an earlier file has too (features.0.bias)" in capsys.readouterr().err
    assert main([alexnet, alex, *options]) == 0
    network = load_network(tmp_path / "lpips")
    assert network.description["model"] == {"backbone": "alex", "width": 8}
    source = "alexnet.safetensors with alex.safetensors"
    assert network.description["training"] == {"converted": "lpips", "source": source}


def test_regressor_flags(tmp_path):
    out = tmp_path / "network"
    flags = "--unit years --scale=100 --image_size 128"
    source = str(FORMATS / "resnet.ckpt")
    assert main([source, "--kind", "resnet-regressor", "--out", str(out), "--flags", flags]) == 0
    written = json.loads((out / "network.json").read_text())
    assert {k: written[k] for k in ("unit", "scale", "mean", "image_size")} == {
        "unit": "years",
        "scale": 100.0,
        "mean": 0.0,
        "image_size": 128,
    }


TINY = {
    "image_size": 32,
    "num_channels": 32,
    "num_res_blocks": 1,
    "channel_mult": "1,2",
    "attention_resolutions": "16",
    "num_head_channels": 16,
    "resblock_updown": True,
    "learn_sigma": True,
}


def random_state_dict(kind, flags):
    """What the originals would save for these flags."""
    rng = np.random.default_rng(0)
    flags = {name: _typed(kind, ORIGINALS[kind][0], name, value) for name, value in flags.items()}
    description = ORIGINALS[kind][1](flags, {})
    return {
        torch_key(kind, path): rng.standard_normal(torch_shape(path, a.shape), np.float32)
        for path, a in leaves(abstract_variables(description))
    }


def test_flags_as_text_as_json_and_over_a_preset(tmp_path):
    path = tmp_path / "flags.json"
    path.write_text(json.dumps(TINY | {"channel_mult": [1, 2], "use_fp16": True}))
    text = " ".join(f"--{name} {value}" for name, value in TINY.items())
    state_dict = random_state_dict("ddpm", TINY)
    by_text, variables = import_network("ddpm", state_dict, read_flags("ddpm", None, text, None))
    by_json, _ = import_network("ddpm", state_dict, read_flags("ddpm", None, None, path))
    by_preset, _ = import_network("ddpm", state_dict, read_flags("ddpm", "celebahq", text, None))
    assert by_text == by_json
    assert by_text["model"] == by_preset["model"]
    assert (by_text["diffusion"]["steps"], by_preset["diffusion"]["steps"]) == (1000, 500)
    assert by_text["model"]["attention_downsampling"] == [2]
    kernel = variables["params"]["input_blocks_2_0"]["in_conv"]["kernel"]
    expected = state_dict["input_blocks.2.0.in_layers.2.weight"].transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(kernel, expected)
    qkv = variables["params"]["middle_block_1"]["qkv"]["kernel"]
    np.testing.assert_array_equal(qkv, state_dict["middle_block.1.qkv.weight"][:, :, 0].T)


def test_diffae_takes_the_averaged_weights(tmp_path):
    flags = {
        "img_size": 32, "net_ch": 32, "net_ch_mult": "1,2", "net_enc_channel_mult": [1, 2],
        "net_beatgans_embed_channels": 64, "style_ch": 64, "net_num_res_blocks": 1,
        "net_enc_num_res_blocks": 1, "net_beatgans_attn_head": 2,
    }  # fmt: skip
    averaged = random_state_dict("diffae", flags)
    others = {key.removeprefix("ema_"): 0 * value for key, value in averaged.items()}
    whole = averaged | others | {"x_T": np.zeros((2, 3, 32, 32), np.float32)}
    description, variables = import_network("diffae", whole, flags)
    assert description["model"]["unet"]["attention_downsampling"] == [2]
    time = variables["params"]["unet"]["time_embed_2"]["kernel"]
    expected = averaged["ema_model.time_embed.time_embed.2.weight"].T
    np.testing.assert_array_equal(time, expected)
    out = variables["params"]["encoder"]["out_proj"]["kernel"]
    expected = averaged["ema_model.encoder.out.3.weight"][:, :, 0, 0].T
    np.testing.assert_array_equal(out, expected)
    bare = {key.removeprefix("ema_model."): value for key, value in averaged.items()}
    _, same = import_network("diffae", bare, flags)
    jax.tree.map(np.testing.assert_array_equal, variables, same)


def test_low_precision_becomes_float32():
    state_dict = {k: v.astype(np.float16) for k, v in random_state_dict("ddpm", TINY).items()}
    _, variables = import_network("ddpm", state_dict, TINY)
    assert {a.dtype for a in jax.tree.leaves(variables)} == {np.dtype("float32")}


def test_keys_that_do_not_fit_are_listed_and_nothing_is_written(tmp_path, capsys):
    state_dict = random_state_dict("ddpm", TINY)
    state_dict["spare.weight"] = np.zeros(3, np.float32)
    del state_dict["out.0.bias"]
    state_dict["time_embed.0.weight"] = state_dict["time_embed.0.weight"].T.copy()
    source, out = tmp_path / "a.safetensors", tmp_path / "network"
    save_file(state_dict, source)
    flags = " ".join(f"--{name} {value}" for name, value in TINY.items())
    command = [str(source), "--kind", "ddpm", "--out", str(out), "--flags", flags]
    assert main(command) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ") and message.count("\n") == 1
    assert "1 missing (out.0.bias)" in message
    assert "1 extra (spare.weight)" in message
    assert "1 misshapen (time_embed.0.weight (32, 128) instead of (128, 32))" in message
    assert list(tmp_path.iterdir()) == [source]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--kind", "ddpm"], "does not fit --kind ddpm"),
        (["--kind", "diffae", "--preset", "square64"], "does not fit --kind diffae"),
        (["--kind", "mnac"], "is no mnac: it lacks the weight"),
        (["--kind", "latent-dpm"], "is no latent-dpm"),
        (["--kind", "steex-classifier"], "is no steex-classifier: it lacks the weight"),
        (["--kind", "ddpm", "--preset", "ffhq256"], "has no preset 'ffhq256'"),
        (["--kind", "ddpm", "--flags", "--batch_size 8"], "has no flag 'batch_size'"),
        (["--kind", "ddpm", "--flags=--num_channels"], "--name value"),
        (["--kind", "ddpm", "--flags", "num_channels 3"], "--name value"),
        (["--kind", "ddpm", "--flags", "--num_channels 12.5"], "cannot be '12.5'"),
        (["--kind", "ddpm", "--flags", "--num_channels=12.5"], "cannot be '12.5'"),
        (["--kind", "ddpm", "--flags", "--num_channels 0"], "cannot be '0'"),
        (["--kind", "ddpm", "--flags", "--num_channels 100"], "describe no ddpm"),
        (["--kind", "ddpm", "--flags", "--learn_sigma maybe"], "cannot be 'maybe'"),
        (["--kind", "ddpm", "--flags", "--image_size 48"], "give --channel_mult"),
        (["--kind", "ddpm", "--flags", "--class_cond True"], "must take no classes"),
        (["--kind", "ddpm", "--flags", "--noise_schedule odd"], "schedule"),
        (["--kind", "ddpm", "--flags", "--num_heads_upsample 2"], "--num_heads_upsample"),
        (["--kind", "resnet-regressor", "--flags", "--scale 0"], "--scale"),
        (["--kind", "ddpm", "--flags", "'"], "cannot be split"),
        (["--kind", "ddpm", "--flags-json", "absent.json"], "absent.json"),
    ],
)
def test_what_does_not_fit_is_one_sentence(tmp_path, capsys, arguments, message):
    out = tmp_path / "network"
    assert main([str(FORMATS / "resnet.ckpt"), "--out", str(out), *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and message in error
    assert not list(tmp_path.iterdir())


def test_nothing_else_is_overwritten(tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    source = str(FORMATS / "resnet.ckpt")
    assert main([source, "--kind", "resnet-regressor", "--out", str(tmp_path)]) == 2
    assert "is no network directory" in capsys.readouterr().err
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_an_unknown_kind_names_itself():
    with pytest.raises(UserError, match="no flag"):
        import_network("mnac", {}, {"image_size": 3})


@pytest.mark.parametrize("wrapper", ["_orig_mod.", "module.", "module._orig_mod."])
def test_names_of_wrappers_are_dropped(wrapper):
    plain = random_state_dict("ddpm", TINY)
    _, expected = import_network("ddpm", plain, TINY)
    wrapped = {wrapper + key: value for key, value in plain.items()}
    _, variables = import_network("ddpm", wrapped, TINY)
    jax.tree.map(np.testing.assert_array_equal, variables, expected)


def test_names_of_wrappers_below_others_are_dropped():
    whole = read_state_dict(FORMATS / "resnet.ckpt")
    inside = {key.replace("model.", "model._orig_mod.", 1): value for key, value in whole.items()}
    assert inside.keys() != whole.keys()
    _, expected = import_network("resnet-regressor", whole)
    _, variables = import_network("resnet-regressor", inside)
    jax.tree.map(np.testing.assert_array_equal, variables, expected)
    # Where both names are there they mean different weights.
    with pytest.raises(UserError, match="extra"):
        import_network("resnet-regressor", whole | inside)


@pytest.mark.parametrize("value", [np.nan, -np.inf, 1e39])
def test_weights_that_are_not_finite_are_refused_by_name(value):
    state_dict = random_state_dict("ddpm", TINY)
    broken = state_dict["out.2.weight"].astype(np.float64)
    broken[0, 0, 0, 0] = value
    with pytest.raises(UserError, match=r"not finite in float32.*\(out\.2\.weight\)"):
        import_network("ddpm", state_dict | {"out.2.weight": broken}, TINY)


def test_names_of_any_length_and_shapes_of_any_depth():
    state_dict = random_state_dict("ddpm", TINY)
    with pytest.raises(UserError) as caught:
        import_network("ddpm", state_dict | {"x" * 5_000_000: np.zeros(1)}, TINY)
    assert len(str(caught.value)) < 500
    deep = read_state_dict(FORMATS / "resnet.ckpt")
    deep |= {f"model.layer1.{i}.conv2.weight": np.zeros(1) for i in range(600)}
    with pytest.raises(UserError, match="deeper than"):
        import_network("resnet-regressor", deep)
    mu = {"model.mu": np.full((1, 3, 1, 1), np.nan)}
    densenet = read_state_dict(FORMATS / "legacy_densenet.tar")
    with pytest.raises(UserError, match="model.mu must be three finite numbers"):
        import_network("densenet-regressor", densenet | mu)
