"""What a network of the originals is, from their own flags.

The functions return a description as in `Network.description`: kind, module arguments, diffusion
process and image size.
"""

import math
from collections.abc import Callable

import numpy as np

from diffcf_jax.checkpoint.original_shapes import (
    DESCRIBED_BY_SHAPES,
    Description,
    Flags,
    StateDict,
    count_blocks,
    densenet_arguments,
    shapes_of,
)
from diffcf_jax.diffusion.schedule import make_diffusion
from diffcf_jax.errors import UserError

# ACE: guided_diffusion/script_util.py, with its default values
DDPM_FLAGS = {
    "image_size": 64,
    "num_channels": 128,
    "num_res_blocks": 2,
    "num_heads": 4,
    "num_heads_upsample": -1,
    "num_head_channels": -1,
    "attention_resolutions": (16, 8),
    "channel_mult": (),
    "dropout": 0.0,
    "class_cond": False,
    "use_scale_shift_norm": True,
    "resblock_updown": False,
    "use_new_attention_order": False,
    "learn_sigma": False,
    "diffusion_steps": 1000,
    "noise_schedule": "linear",
    "predict_xstart": False,
    "rescale_timesteps": False,
    # How the original runs or trains it, not what it is
    "timestep_respacing": "",
    "use_checkpoint": False,
    "use_fp16": False,
    "use_kl": False,
    "rescale_learned_sigmas": False,
}
DDPM_CHANNEL_MULT = {
    28: (1, 1, 2),
    64: (1, 2, 3, 4),
    128: (1, 1, 2, 3, 4),
    224: (1, 1, 2, 3, 4),
    256: (1, 1, 2, 2, 4, 4),
    512: (0.5, 1, 1, 2, 2, 4, 4),
}
# Diff-AE: TrainConfig with the values of templates.autoenc_base
DIFFAE_FLAGS = {
    "img_size": 64,
    "net_ch": 64,
    "net_ch_mult": (1, 2, 4, 8),
    "net_enc_channel_mult": (1, 2, 4, 8, 8),
    "net_attn": (16,),
    "net_enc_attn": (),
    "net_beatgans_attn_head": 1,
    "net_beatgans_embed_channels": 512,
    "style_ch": 512,
    "net_num_res_blocks": 2,
    "net_enc_num_res_blocks": 2,
    "net_resblock_updown": True,
    "net_beatgans_resnet_two_cond": True,
    "dropout": 0.1,
    "T": 1000,
    "beta_scheduler": "linear",
    # How the original runs or trains it, not what it is
    "T_eval": 20,
    "fp16": False,
    "net_beatgans_gradient_checkpoint": False,
    "net_beatgans_resnet_use_zero_module": True,
}
# The originals' regressors have no flags: these say what their numbers mean.
REGRESSOR_FLAGS = {"image_size": 256, "unit": "", "mean": 0.0, "scale": 1.0}
AGE_FLAGS = {"image_size": 64, "unit": "years"}

PRESETS = {
    ("ddpm", "celebahq"): {
        "image_size": 256,
        "attention_resolutions": (32, 16, 8),
        "num_head_channels": 64,
        "resblock_updown": True,
        "learn_sigma": True,
        "diffusion_steps": 500,
    },
    ("ddpm", "square64"): {
        "attention_resolutions": (32, 16, 8),
        "resblock_updown": True,
        "learn_sigma": True,
    },
    ("diffae", "ffhq256"): {
        "img_size": 256,
        "net_ch": 128,
        "net_ch_mult": (1, 1, 2, 2, 4, 4),
        "net_enc_channel_mult": (1, 1, 2, 2, 4, 4, 4),
    },
    ("diffae", "ffhq128"): {
        "img_size": 128,
        "net_ch": 128,
        "net_ch_mult": (1, 1, 2, 3, 4),
        "net_enc_channel_mult": (1, 1, 2, 3, 4, 4),
    },
    ("diffae", "square64"): {},
    ("densenet-regressor", "celebahq"): {"unit": "years", "scale": 100.0},
    ("resnet-regressor", "square64"): {"image_size": 64},
}


def describe_ddpm(flags: Flags, state_dict: StateDict) -> Description:
    """Describe ACE's UNet and its diffusion process by ACE's flags."""
    flags = {**DDPM_FLAGS, **flags}
    size = flags["image_size"]
    if flags["class_cond"]:
        raise UserError("--class_cond True is not supported: the network must take no classes.")
    head_channels = flags["num_head_channels"] if flags["num_head_channels"] != -1 else None
    if head_channels is None and flags["num_heads_upsample"] not in (-1, flags["num_heads"]):
        raise UserError("--num_heads_upsample must be -1 or equal --num_heads.")
    channel_mult = flags["channel_mult"] or DDPM_CHANNEL_MULT.get(size)
    if channel_mult is None:
        raise UserError(f"--image_size {size} has no default widths; give --channel_mult.")
    if not all(isinstance(res, int) for res in flags["attention_resolutions"]):
        raise UserError("--attention_resolutions must be whole numbers.")
    model = {
        "channels": flags["num_channels"],
        "channel_mult": list(channel_mult),
        "num_res_blocks": flags["num_res_blocks"],
        "attention_downsampling": [size // res for res in flags["attention_resolutions"]],
        "num_heads": flags["num_heads"],
        "num_head_channels": head_channels,
        "out_channels": 6 if flags["learn_sigma"] else 3,
        "scale_shift_norm": flags["use_scale_shift_norm"],
        "resblock_updown": flags["resblock_updown"],
        "qkv_before_heads": flags["use_new_attention_order"],
        "dropout": flags["dropout"],
    }
    diffusion = {
        "steps": flags["diffusion_steps"],
        "schedule": flags["noise_schedule"],
        "predict": "x_start" if flags["predict_xstart"] else "eps",
        "variance": "learned_range" if flags["learn_sigma"] else "fixed_large",
        "rescale_timesteps": flags["rescale_timesteps"],
    }
    make_diffusion(**diffusion)  # refuses an unknown schedule
    return {"kind": "ddpm", "model": model, "diffusion": diffusion, "image_size": size}


def describe_diffae(flags: Flags, state_dict: StateDict) -> Description:
    """Describe a Diff-AE by the flags of its TrainConfig."""
    flags = {**DIFFAE_FLAGS, **flags}
    size = flags["img_size"]
    if not flags["net_beatgans_resnet_two_cond"]:
        raise UserError("--net_beatgans_resnet_two_cond False is not supported.")
    unet_mult = flags["net_ch_mult"]
    encoder_mult = flags["net_enc_channel_mult"] or unet_mult

    def attending(resolutions: tuple[int, ...], levels: int) -> list[int]:
        return [2**level for level in range(levels) if size // 2**level in resolutions]

    shared = {
        "channels": flags["net_ch"],
        "num_heads": flags["net_beatgans_attn_head"],
        "resblock_updown": flags["net_resblock_updown"],
    }
    unet = {
        **shared,
        "channel_mult": list(unet_mult),
        "num_res_blocks": flags["net_num_res_blocks"],
        "attention_downsampling": attending(flags["net_attn"], len(unet_mult)),
        "out_channels": 3,
        "emb_channels": flags["net_beatgans_embed_channels"],
        "dropout": flags["dropout"],
    }
    encoder = {
        **shared,
        "z_channels": flags["style_ch"],
        "channel_mult": list(encoder_mult),
        "num_res_blocks": flags["net_enc_num_res_blocks"],
        "attention_downsampling": attending(
            flags["net_enc_attn"] or flags["net_attn"], len(encoder_mult)
        ),
    }
    diffusion = {
        "steps": flags["T"],
        "schedule": flags["beta_scheduler"],
        "variance": "fixed_large",
    }
    make_diffusion(**diffusion)
    model = {"unet": unet, "encoder": encoder}
    return {"kind": "diffae", "model": model, "diffusion": diffusion, "image_size": size}


def describe_resnet(flags: Flags, state_dict: StateDict) -> Description:
    """Describe the paper's ResNet with basic blocks; a 4x4 stem is the one for small images."""
    shapes = shapes_of(state_dict, "model.")
    width, _, kernel, _ = shapes["conv1.weight"]
    if kernel not in (4, 7):
        raise UserError(f"The first convolution is {kernel}x{kernel}, not 4x4 or 7x7.")
    model = {
        "width": width,
        "blocks": [count_blocks(shapes, rf"layer{stage}.") for stage in range(1, 5)],
        "stem_kernel": kernel,
        "stem_stride": 1 if kernel == 4 else 2,
        "stem_padding": 2 if kernel == 4 else 3,
    }
    flags = {"image_size": 64 if kernel == 4 else 224, **flags}
    return {"kind": "resnet", "model": model, **_label(flags)}


def describe_densenet(flags: Flags, state_dict: StateDict) -> Description:
    """Describe the paper's DenseNet regressor; its normalisation is stored with it."""
    prefix = "model.classifier.0.feat_extract.features."
    model = densenet_arguments(shapes_of(state_dict, prefix))
    for name in ("mu", "sigma"):
        if f"model.{name}" in state_dict:
            values = state_dict[f"model.{name}"]
            if values.size != 3 or not np.isfinite(values.astype(np.float32)).all():
                raise UserError(f"The weight model.{name} must be three finite numbers.")
            model[name] = [float(v) for v in values.ravel()]
    return {"kind": "densenet", "model": model, **_label(flags)}


def describe_face_api_age(flags: Flags, state_dict: StateDict) -> Description:
    """Describe the age network of face-api, which resizes images itself."""
    model = {
        "width": state_dict["entry_flow/conv_in/filters"].shape[0],
        "blocks": count_blocks(state_dict, "middle_flow/", "/separable_conv2/bias"),
    }
    return {"kind": "tiny_xception", "model": model, **_label({**AGE_FLAGS, **flags})}


def describe_faceres_age(flags: Flags, state_dict: StateDict) -> Description:
    """Describe FaceRes's age network, which resizes images itself."""
    ages, hidden = state_dict["age_pred/kernel"].shape
    width = state_dict["conv1/convolution/merged_input"].shape[0]
    model = {"width": width, "hidden": hidden, "ages": ages}
    return {"kind": "mobilenet", "model": model, **_label({**AGE_FLAGS, **flags})}


# An original's kind -> its flags with their default values, and what describes it
ORIGINALS: dict[str, tuple[Flags, Callable[[Flags, StateDict], Description]]] = {
    "ddpm": (DDPM_FLAGS, describe_ddpm),
    "diffae": (DIFFAE_FLAGS, describe_diffae),
    "densenet-regressor": (REGRESSOR_FLAGS, describe_densenet),
    "resnet-regressor": (REGRESSOR_FLAGS, describe_resnet),
    "face-api-age": ({"image_size": 64}, describe_face_api_age),
    "faceres-age": ({"image_size": 64}, describe_faceres_age),
    **{kind: ({}, describe) for kind, describe in DESCRIBED_BY_SHAPES.items()},
}


def _label(flags: Flags) -> Description:
    """What a regressor's number means: y = mean + scale * prediction, in a unit."""
    flags = {**REGRESSOR_FLAGS, **flags}
    if not (math.isfinite(flags["mean"]) and math.isfinite(flags["scale"]) and flags["scale"] > 0):
        raise UserError("--mean must be finite, and --scale finite and positive.")
    return {**flags, "unit": flags["unit"] or None}
