"""DDPMs of the library diffusers: folders with a UNet2DModel and its scheduler.

They are read without PyTorch and without diffusers, and nothing in them is run. The UNet is that of
`models.unet` with its weights under other names; what it has beyond that is refused by its key.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from diffcf_jax.checkpoint.description import check_description
from diffcf_jax.checkpoint.diffusers_keys import names, rearranged
from diffcf_jax.checkpoint.network import abstract_variables
from diffcf_jax.checkpoint.torch_reader import read_state_dict
from diffcf_jax.checkpoint.weights import fill
from diffcf_jax.errors import UserError
from diffcf_jax.files import short
from diffcf_jax.jsonfile import read_json

Config = Mapping[str, Any]

_WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")

# Key of unet/config.json -> what it is where it is missing, and what else is supported
_UNET: dict[str, tuple[Any, ...]] = {
    "in_channels": (3,),
    "out_channels": (3, 6),
    "center_input_sample": (False,),
    "time_embedding_type": ("positional",),
    "flip_sin_to_cos": (True, False),
    "mid_block_type": ("UNetMidBlock2D",),
    "mid_block_scale_factor": (1,),
    "downsample_padding": (1, 0),
    "downsample_type": ("conv",),
    "upsample_type": ("conv",),
    "act_fn": ("silu", "swish"),
    "resnet_time_scale_shift": ("default", "scale_shift"),
    "add_attention": (True,),
    "class_embed_type": (None,),
    "num_class_embeds": (None,),
}
# The same of the scheduler's, without what only chooses timesteps for sampling.
_SCHEDULER: dict[str, tuple[Any, ...]] = {
    "_class_name": ("DDPMScheduler", "DDIMScheduler"),
    "beta_schedule": ("linear", "scaled_linear", "squaredcos_cap_v2"),
    "trained_betas": (None,),
    "prediction_type": ("epsilon", "sample", "v_prediction"),
    "variance_type": ("fixed_small", "fixed_small_log", "fixed_large", "learned_range"),
    "clip_sample": (True,),
    "clip_sample_range": (1,),
    "thresholding": (False,),
    "rescale_betas_zero_snr": (False,),
}
_PREDICT = {"epsilon": "eps", "sample": "x_start", "v_prediction": "v"}


def is_diffusers(folder: Path) -> bool:
    """Whether a folder is one of diffusers, and no network directory."""
    files = ("model_index.json", "unet/config.json", "scheduler_config.json")
    there = any((folder / name).is_file() for name in files)
    return there and not (folder / "network.json").exists()


def read_diffusers(folder: Path) -> tuple[dict[str, Any], Any]:
    """Read a DDPM that `save_pretrained` of diffusers wrote.

    Args:
        folder: with `unet/` and `scheduler/`, or with the files of both beside each other.

    Returns:
        The description (see `Network.description`) and the variables, float32.

    Raises:
        UserError: a file is missing or broken, or the model is of another kind; the sentence names
            the key.
    """
    unet = folder / "unet" if (folder / "unet").is_dir() else folder
    config = read_json(unet / "config.json")
    description = describe_diffusers(folder)
    try:
        expected = abstract_variables(description)
    except UserError as error:
        raise UserError(f"{folder} describes no DDPM that can be built: {error}") from None
    path = next((unet / name for name in _WEIGHTS if (unet / name).is_file()), unet / _WEIGHTS[0])
    layers = description["model"]["num_res_blocks"]
    state_dict = rearranged(read_state_dict(path), config.get("flip_sin_to_cos", True))
    variables = fill(
        expected,
        state_dict,
        names(layers),
        str(path),
        f"{path} does not fit its config.json",
    )
    return description, variables


def describe_diffusers(folder: Path) -> dict[str, Any]:
    """Describe a DDPM by its two JSON files.

    Raises:
        UserError: see `read_diffusers`.
    """
    paths = [
        folder / name / file if (folder / name).is_dir() else folder / file
        for name, file in (("unet", "config.json"), ("scheduler", "scheduler_config.json"))
    ]
    unet, scheduler = map(read_json, paths)
    name = unet.get("_class_name", "UNet2DModel")
    if name != "UNet2DModel":
        raise UserError(f"{paths[0]} is of a {short(name)}: only a UNet2DModel can be read.")
    model = _model(_supported(paths[0], unet, _UNET), paths[0])
    diffusion = _diffusion(_supported(paths[1], scheduler, _SCHEDULER), paths[1])
    learned = diffusion["variance"] == "learned_range"
    if model["out_channels"] != (6 if learned else 3):
        raise UserError(
            f"{paths[0]} has out_channels={model['out_channels']}, which does not fit variance_type"
            f"={scheduler.get('variance_type')} in {paths[1]}: check these files."
        )
    description = {
        "kind": "ddpm",
        "model": model,
        "diffusion": diffusion,
        "image_size": _whole(paths[0], unet, "sample_size", None),
        "training": {"converted": "diffusers"},
    }
    try:
        check_description(description)
    except UserError as error:
        raise UserError(f"{folder} describes no DDPM that can be read: {error}") from None
    return description


def _supported(path: Path, config: Config, known: Mapping[str, tuple[Any, ...]]) -> Config:
    """The config with its default values, if all that it says is supported."""
    for key, values in known.items():
        value = config.get(key, values[0])
        if value not in values:
            wanted = " or ".join(str(one) for one in values)
            raise UserError(
                f"{path} has {key}={short(value)}, which is not supported: only {wanted} is."
            )
    return {**{key: values[0] for key, values in known.items()}, **config}


def _model(config: Config, path: Path) -> dict[str, Any]:
    """Arguments of `UNet`."""
    widths = config.get("block_out_channels", [224, 448, 672, 896])
    groups = _whole(path, config, "norm_num_groups", 32)
    if (
        not isinstance(widths, Sequence)
        or not widths
        or not all(type(width) is int and width > 0 and width % groups == 0 for width in widths)
        or widths[0] % 2
    ):
        raise UserError(
            f"{path} has block_out_channels={short(widths)}: they must be multiples of "
            f"norm_num_groups={groups}, and the first one even."
        )
    scale_shift = config["resnet_time_scale_shift"] == "scale_shift"
    middle = config.get("attn_norm_num_groups")
    # With scale_shift the attention in the middle has no norm unless its groups are given.
    if middle != groups and (scale_shift or middle is not None):
        raise UserError(
            f"{path} has attn_norm_num_groups={short(middle)}, which is not supported: only "
            f"norm_num_groups={groups} is."
        )
    down = _attending(path, config, "down_block_types", "Down", len(widths))
    up = _attending(path, config, "up_block_types", "Up", len(widths))
    if down != up[::-1]:
        raise UserError(
            f"{path} has up_block_types that do not mirror down_block_types: this is not supported."
        )
    shift, half = config.get("freq_shift", 0), widths[0] // 2
    if type(shift) not in (int, float) or not 0 <= shift < half:
        raise UserError(f"{path} has freq_shift={short(shift)}: it must be 0 to {half - 1}.")
    head = config.get("attention_head_dim", 8)
    if head is not None:
        head = _whole(path, config, "attention_head_dim", 8)
    return {
        "channels": widths[0],
        "channel_mult": [width / widths[0] for width in widths],
        "num_res_blocks": _whole(path, config, "layers_per_block", 2),
        "attention_downsampling": [2**level for level, attends in enumerate(down) if attends],
        "num_heads": 1,
        "num_head_channels": head,
        "out_channels": config["out_channels"],
        "emb_channels": config.get("time_embedding_dim"),
        "scale_shift_norm": scale_shift,
        "resblock_updown": False,
        "qkv_before_heads": True,
        "dropout": config.get("dropout", 0.0),
        "norm_groups": groups,
        "norm_eps": config.get("norm_eps", 1e-5),
        # The frequencies are P^(-i / half) here, and 10000^(-i / (half - shift)) there.
        "max_period": 10_000.0 ** (half / (half - shift)),
        "pad_end": config["downsample_padding"] == 0,
    }


def _attending(path: Path, config: Config, key: str, way: str, levels: int) -> list[bool]:
    """Which levels attend."""
    plain, attending = f"{way}Block2D", f"Attn{way}Block2D"
    default = [plain] + [attending] * 3
    types = config.get(key, default if way == "Down" else default[::-1])
    if not isinstance(types, Sequence) or len(types) != levels:
        raise UserError(f"{path} has {key}={short(types)}: it must name one block per level.")
    for name in types:
        if name not in (plain, attending):
            raise UserError(
                f"{path} has {short(name)} in {key}, which is not supported: only {plain} or "
                f"{attending} is."
            )
    return [name == attending for name in types]


def _diffusion(config: Config, path: Path) -> dict[str, Any]:
    """Arguments of `make_diffusion`."""
    schedule = "cosine"
    if config["beta_schedule"] != "squaredcos_cap_v2":
        betas = config.get("beta_start", 1e-4), config.get("beta_end", 0.02)
        if not all(type(beta) in (int, float) and 0 < beta < 1 for beta in betas):
            raise UserError(
                f"{path} has beta_start={short(betas[0])} and beta_end={short(betas[1])}: they "
                "must lie between 0 and 1."
            )
        schedule = f"{config['beta_schedule']}{betas[0]},{betas[1]}"
    return {
        "steps": _whole(path, config, "num_train_timesteps", 1000),
        "schedule": schedule,
        "predict": _PREDICT[config["prediction_type"]],
        "variance": config["variance_type"].removesuffix("_log"),
    }


def _whole(path: Path, config: Config, key: str, default: int | None) -> int:
    value = config.get(key, default)
    if type(value) is not int or value < 1:
        raise UserError(f"{path} has {key}={short(value)}: it must be a whole number from 1.")
    return value
