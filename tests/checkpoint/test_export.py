"""Exporting: the originals' keys, layouts and flags, and the way back."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from diffcf_jax.checkpoint.convert import import_network
from diffcf_jax.checkpoint.convert import main as convert
from diffcf_jax.checkpoint.export import export_network
from diffcf_jax.checkpoint.export import main as export
from diffcf_jax.checkpoint.network import Network, abstract_variables, build_module
from diffcf_jax.checkpoint.store import load_network, save_network
from diffcf_jax.errors import UserError
from diffcf_jax.models.diffae import DiffAE, SemanticEncoder
from diffcf_jax.models.unet import UNet

GOLDEN = Path(__file__).parents[1] / "golden"
UNET = {
    "channels": 32,
    "channel_mult": [1, 2],
    "num_res_blocks": 1,
    "attention_downsampling": [2],
    "num_heads": 2,
    "resblock_updown": False,
}


def random_network(description):
    rng = np.random.default_rng(0)
    variables = jax.tree.map(
        lambda a: rng.standard_normal(a.shape, np.float32), abstract_variables(description)
    )
    return Network(description, build_module(description), variables)


@pytest.mark.parametrize(
    "kind, folder, lost",
    [
        ("resnet-regressor", "resnet_a", ()),
        ("densenet-regressor", "densenet_a", ()),
        ("mnac", "mnac_a", ()),
        ("vggface2", "fva_a", ("fc.weight", "fc.bias")),  # identities, which are not read
        ("latent-dpm", "latent_dpm", ()),
    ],
)
def test_every_key_comes_back(kind, folder, lost):
    original = dict(np.load(GOLDEN / folder / "weights.npz"))
    description, variables = import_network(kind, original)
    network = Network(description, build_module(description), variables)
    exported_kind, exported, _ = export_network(network)
    assert exported_kind == kind
    assert exported.keys() == original.keys() - set(lost)
    for key, array in exported.items():
        assert array.dtype == original[key].dtype
        if not key.endswith("num_batches_tracked"):
            np.testing.assert_array_equal(array, original[key])


def unets(module):
    if isinstance(module, DiffAE):
        return UNet(**module.unet), SemanticEncoder(**module.encoder)
    return (module,)


@pytest.mark.parametrize(
    "description",
    [
        {
            "kind": "ddpm",
            "model": UNET | {"qkv_before_heads": True, "scale_shift_norm": False},
            "diffusion": {"steps": 500, "schedule": "cosine"},
            "image_size": 32,
        },
        {
            "kind": "ddpm",
            "model": UNET | {"out_channels": 3, "num_head_channels": 16, "resblock_updown": True},
            "diffusion": {"variance": "fixed_large", "predict": "x_start"},
            "image_size": 32,
        },
        {
            "kind": "diffae",
            "model": {
                "unet": UNET | {"out_channels": 3, "emb_channels": 48},
                "encoder": UNET | {"z_channels": 48, "channel_mult": [1, 1, 2]},
            },
            "diffusion": {"variance": "fixed_large"},
            "image_size": 32,
        },
    ],
    ids=["ddpm", "ddpm_updown", "diffae"],
)
def test_generators_go_out_and_come_back_by_their_flags(tmp_path, description):
    network = random_network(description)
    save_network(tmp_path / "network", description, network.variables)
    file = tmp_path / "weights.safetensors"
    assert export([str(tmp_path / "network"), "--out", str(file)]) == 0
    with safe_open(file, "numpy") as opened:
        metadata = opened.metadata()
    command = [str(file), "--kind", metadata["kind"], "--out", str(tmp_path / "back")]
    assert convert([*command, "--flags", metadata["flags"]]) == 0
    back = load_network(tmp_path / "back")
    jax.tree.map(np.testing.assert_array_equal, back.variables, network.variables)
    assert back.description["image_size"] == 32
    # Heads and attention levels change no shape: the flags must carry them.
    assert unets(back.module) == unets(network.module)
    for name, value in description["diffusion"].items():
        assert back.description["diffusion"][name] == value


def test_classifier_has_steex_keys_and_comes_back():
    model = {"growth": 4, "blocks": [1, 2], "init_features": 8, "outputs": 3}
    network = random_network({"kind": "densenet", "model": model, "image_size": 32})
    kind, state_dict, _ = export_network(network)
    assert kind == "steex-classifier"
    assert state_dict["classifier.weight"].shape == (3, 14)
    layer = "feat_extract.feat_extract.features.denseblock2.denselayer1.conv1.weight"
    assert state_dict[layer].shape == (16, 6, 1, 1)
    description, variables = import_network(kind, state_dict)
    assert description["model"] == model | {"bn_size": 4}
    jax.tree.map(np.testing.assert_array_equal, variables, network.variables)


def test_metadata_and_layout(tmp_path):
    description = {"kind": "resnet", "model": {"width": 4, "blocks": [1]}, "image_size": 16}
    network = random_network(description)
    save_network(tmp_path / "network", description, network.variables)
    file = tmp_path / "deep" / "weights.safetensors"
    assert export([str(tmp_path / "network"), "--out", str(file)]) == 0
    state_dict = load_file(file)
    kernel = network.variables["params"]["conv1"]["kernel"]
    np.testing.assert_array_equal(state_dict["model.conv1.weight"], kernel.transpose(3, 2, 0, 1))
    assert state_dict["model.bn1.num_batches_tracked"].dtype == np.int64
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize(
    "model, diffusion, what",
    [({"patch_size": 2}, {}, "patch_size"), ({"emb_channels": 64}, {}, "emb_channels"),
     ({"channel_mult": [0.5, 1]}, {}, "channel_mult"),
     ({"attention_downsampling": []}, {}, "attention"), ({}, {"predict": "v"}, "predicts v")],
)  # fmt: skip
def test_what_the_original_cannot_build_is_refused(model, diffusion, what):
    description = {"kind": "ddpm", "model": UNET | model, "diffusion": diffusion, "image_size": 32}
    network = Network(description, build_module(description), {})
    with pytest.raises(UserError, match=what):
        export_network(network)


@pytest.mark.parametrize(
    "encoder, diffusion, what",
    [({"attention_downsampling": []}, {}, "encoder without attention"),
     ({}, {"predict": "v"}, "must predict the noise"), ({"num_heads": 4}, {}, "num_heads")],
)  # fmt: skip
def test_what_the_original_cannot_build_as_a_diffae_is_refused(encoder, diffusion, what):
    model = {"unet": UNET | {"out_channels": 3}, "encoder": UNET | {"z_channels": 48} | encoder}
    description = {"kind": "diffae", "model": model, "diffusion": diffusion, "image_size": 32}
    network = Network(description, build_module(description), {})
    with pytest.raises(UserError, match=what):
        export_network(network)


@pytest.mark.parametrize("model, what", [({"max_pool": False}, "max_pool"), ({"hidden": 8}, "hid")])
def test_what_the_original_cannot_build_as_a_resnet_is_refused(model, what):
    description = {"kind": "resnet", "model": {"width": 4} | model, "image_size": 16}
    network = Network(description, build_module(description), {})
    with pytest.raises(UserError, match=what):
        export_network(network)


def test_errors_of_the_command_line(tmp_path, capsys):
    assert export([str(tmp_path / "absent"), "--out", str(tmp_path / "a.safetensors")]) == 2
    assert export([str(tmp_path), "--out", str(tmp_path / "a.pt")]) == 2
    (tmp_path / "network.json").write_text(json.dumps({"format": 1}))
    assert export([str(tmp_path), "--out", str(tmp_path / "a.safetensors")]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 3 and all(error.startswith("error: ") for error in errors)
