"""Turn a network directory into a safetensors file with a PyTorch original's keys.

    diffcf export NETWORK --out FILE.safetensors

The file's metadata holds the flags with which the original builds the same network.
"""

import functools
import os
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from absl import flags
from safetensors.numpy import save_file

from diffcf_jax import cli, shipped
from diffcf_jax.checkpoint.network import Network
from diffcf_jax.checkpoint.store import load_network
from diffcf_jax.checkpoint.torch_keys import write_state_dict
from diffcf_jax.errors import UserError
from diffcf_jax.models.diffae import DiffAE, SemanticEncoder
from diffcf_jax.models.unet import UNet


def export_network(network: Network) -> tuple[str, dict[str, np.ndarray], str]:
    """Name and lay out a network's weights as the original does.

    Args:
        network: what `load_network` returns.

    Returns:
        The original's kind, its arrays by key, and the flags with which it builds the network.

    Raises:
        UserError: the original cannot build this network.
    """
    description, model = network.description, network.description["model"]
    flags: dict[str, Any] = {}
    match network.kind:
        case "ddpm":
            kind, flags = "ddpm", _ddpm_flags(description, network.module)
        case "diffae":
            kind, flags = "diffae", _diffae_flags(description, network.module)
        case "latent_dpm":
            kind = "latent-dpm"
        case "resnet":
            _require(network.module.max_pool, "max_pool must be true")
            _require(network.module.hidden is None, "hidden must be null")
            kind = "resnet-regressor"
        case "densenet":
            kind = "densenet-regressor" if model.get("outputs") is None else "steex-classifier"
        case "caffe_resnet":
            kind = "vggface2" if model.get("outputs") is None else "mnac"
        case "inception" | "lpips" | "simsiam":
            kind = network.kind
        case other:
            raise UserError(
                f"A network of kind {other} has no PyTorch original: use its network directory."
            )
    state_dict = write_state_dict(kind, network.variables)
    if kind == "densenet-regressor":
        for name in ("mu", "sigma"):
            values = getattr(network.module, name)
            state_dict[f"model.{name}"] = np.asarray(values, np.float32).reshape(1, 3, 1, 1)
    return kind, state_dict, " ".join(f"--{name} {value}" for name, value in flags.items())


def _ddpm_flags(description: Mapping[str, Any], unet: UNet) -> dict[str, Any]:
    """Return ACE's flags of a UNet and its process."""
    size, diffusion = description["image_size"], description["diffusion"]
    _require(unet.patch_size == 1, "patch_size must be 1")
    _require(unet.emb_channels in (None, 4 * unet.channels), "emb_channels must be 4 * channels")
    _require(unet.conv_resample, "conv_resample must be true")
    for name in ("norm_groups", "norm_eps", "max_period", "pad_end", "geometry_channels"):
        _require(
            getattr(unet, name) == getattr(UNet, name), f"{name} must be {getattr(UNet, name)}"
        )
    _require("," not in diffusion.get("schedule", "linear"), "the schedule has betas of its own")
    attention = unet.attention_downsampling
    _require(
        bool(attention) and all(size % factor == 0 for factor in attention),
        "attention_downsampling must be factors of the image size",
    )
    _require(all(m == int(m) for m in unet.channel_mult), "channel_mult must be whole numbers")
    _require(diffusion.get("predict", "eps") in ("eps", "x_start"), "it predicts v")
    learned = diffusion.get("variance", "learned_range") == "learned_range"
    _require(unet.out_channels == (6 if learned else 3), "out_channels must fit the variance")
    return {
        "image_size": size,
        "num_channels": unet.channels,
        "num_res_blocks": unet.num_res_blocks,
        "channel_mult": _commas(unet.channel_mult),
        "attention_resolutions": _commas(size // factor for factor in attention),
        "num_heads": unet.num_heads,
        "num_head_channels": unet.num_head_channels or -1,
        "use_scale_shift_norm": unet.scale_shift_norm,
        "resblock_updown": unet.resblock_updown,
        "use_new_attention_order": unet.qkv_before_heads,
        "dropout": unet.dropout,
        "learn_sigma": learned,
        "diffusion_steps": diffusion.get("steps", 1000),
        "noise_schedule": diffusion.get("schedule", "linear"),
        "predict_xstart": diffusion.get("predict", "eps") == "x_start",
        "rescale_timesteps": diffusion.get("rescale_timesteps", False),
    }


def _diffae_flags(description: Mapping[str, Any], diffae: DiffAE) -> dict[str, Any]:
    """Return the TrainConfig fields of a Diff-AE."""
    size, diffusion = description["image_size"], description["diffusion"]
    unet, encoder = UNet(**diffae.unet), SemanticEncoder(**diffae.encoder)
    for name in ("patch_size", "channels", "num_heads", "resblock_updown", "qkv_before_heads"):
        same = getattr(unet, name) == getattr(encoder, name)
        _require(same, f"{name} must be the same in unet and encoder")
    _require(unet.patch_size == 1, "patch_size must be 1")
    _require(not unet.qkv_before_heads, "qkv_before_heads must be false")
    _require(unet.scale_shift_norm, "scale_shift_norm must be true")
    _require(unet.conv_resample and encoder.conv_resample, "conv_resample must be true")
    _require(not (unet.num_head_channels or encoder.num_head_channels), "num_head_channels")
    _require(unet.out_channels == 3, "out_channels must be 3")
    _require(diffusion.get("predict", "eps") == "eps", "it must predict the noise")
    # No resolutions mean those of the UNet there.
    _require(
        bool(encoder.attention_downsampling) or not unet.attention_downsampling,
        "an encoder without attention needs a UNet without",
    )
    return {
        "img_size": size,
        "net_ch": unet.channels,
        "net_ch_mult": _commas(unet.channel_mult),
        "net_enc_channel_mult": _commas(encoder.channel_mult),
        "net_attn": _commas(size // f for f in unet.attention_downsampling),
        "net_enc_attn": _commas(size // f for f in encoder.attention_downsampling),
        "net_beatgans_attn_head": unet.num_heads,
        "net_beatgans_embed_channels": unet.emb_channels or 4 * unet.channels,
        "style_ch": encoder.z_channels,
        "net_num_res_blocks": unet.num_res_blocks,
        "net_enc_num_res_blocks": encoder.num_res_blocks,
        "net_resblock_updown": unet.resblock_updown,
        "dropout": unet.dropout,
        "T": diffusion.get("steps", 1000),
        "beta_scheduler": diffusion.get("schedule", "linear"),
    }


def _require(condition: bool, what: str) -> None:
    """Refuse a network that the original cannot build."""
    if not condition:
        raise UserError(f"The PyTorch original cannot build this network: {what}.")


def _commas(values: Iterable[Any]) -> str:
    """Write a list as the originals' flags do."""
    return ",".join(str(value) for value in values)


def _define(values: flags.FlagValues) -> None:
    cli.define_path(values, "out", "The .safetensors file to write.")


def _export(args: flags.FlagValues, arguments: list[str]) -> None:
    out = args.out
    if out.suffix != ".safetensors":
        raise UserError(f"--out={out} must end in .safetensors: give such a file.")
    kind, state_dict, original_flags = export_network(load_network(arguments[0]))
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.partial-{os.getpid()}")
    save_file(state_dict, partial, metadata={"kind": kind, "flags": original_flags})
    partial.replace(out)
    print(f"{out}: {kind}, {len(state_dict)} arrays")
    if original_flags:
        print(f"flags: {original_flags}")


main = cli.Command(
    program=functools.partial(shipped.command, "export"),
    about="""Write a network's weights with the PyTorch original's keys, as a safetensors file.

The file's metadata holds the flags with which the original builds the same network.""",
    run=_export,
    define=_define,
    arguments=("NETWORK",),
    required=("out",),
)

if __name__ == "__main__":
    sys.exit(main())
