"""What a network of the originals is, from the shapes of its weights alone.

The functions return a description as in `Network.description`: kind, module arguments, diffusion
process and image size.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Flags = Mapping[str, Any]
Description = dict[str, Any]
StateDict = Mapping[str, np.ndarray]


def describe_latent_dpm(flags: Flags, state_dict: StateDict) -> Description:
    """Describe a latent DPM by its shapes; its process is that of all published ones."""
    shapes = shapes_of(state_dict, "ema_model.latent_net.")
    layers = 1 + max(int(key.split(".")[1]) for key in shapes if key.startswith("layers."))
    hidden, channels = shapes["layers.0.linear.weight"]
    widths = [shapes[f"layers.{i}.linear.weight"][1] for i in range(layers)]
    model = {
        "channels": channels,
        "hidden": hidden,
        "layers": layers,
        "skip_layers": [i for i in range(1, layers) if widths[i] == hidden + channels],
        "time_channels": shapes["time_embed.0.weight"][1],
        "use_norm": "layers.0.norm.weight" in shapes,
    }
    diffusion = {"steps": 1000, "schedule": "const0.008", "variance": "fixed_large"}
    return {"kind": "latent_dpm", "model": model, "diffusion": diffusion, "image_size": None}


def describe_steex(flags: Flags, state_dict: StateDict) -> Description:
    """Describe STEEX's classifier: one logit per class of images normalised by 0.5 and 0.5."""
    model = densenet_arguments(shapes_of(state_dict, "feat_extract.feat_extract.features."))
    model["outputs"] = state_dict["classifier.weight"].shape[0]
    return {"kind": "densenet", "model": model, "image_size": 256}


def describe_mnac(flags: Flags, state_dict: StateDict) -> Description:
    """Describe STEEX's attribute oracle."""
    shapes = shapes_of(state_dict, "feat_extract.")
    model = {
        "width": shapes["conv1_7x7_s2.weight"][0],
        "blocks": [count_blocks(shapes, f"conv{stage}_", "_3x3.weight") for stage in range(2, 6)],
        "outputs": state_dict["classifier.weight"].shape[0],
    }
    return {"kind": "caffe_resnet", "model": model, "image_size": 224}


def describe_vggface2(flags: Flags, state_dict: StateDict) -> Description:
    """Describe VGGFace2's ResNet-50, of which the features before the identities are kept."""
    model = {
        "width": state_dict["conv1.weight"].shape[0],
        "blocks": [
            count_blocks(shapes_of(state_dict, ""), f"layer{stage}.", ".conv2.weight")
            for stage in range(1, 5)
        ],
    }
    return {"kind": "caffe_resnet", "model": model, "image_size": 224}


def describe_inception(flags: Flags, state_dict: StateDict) -> Description:
    """Describe FID's Inception-v3, of which the features before the classes are kept."""
    model = {"width": state_dict["Conv2d_1a_3x3.conv.weight"].shape[0]}
    return {"kind": "inception", "model": model, "image_size": 299}


def describe_lpips(flags: Flags, state_dict: StateDict) -> Description:
    """Describe LPIPS by the shape of its classifier's first layers."""
    width, _, kernel, _ = state_dict["features.0.weight"].shape
    backbone = "alex" if kernel == 11 else "vgg"
    if "features.3.squeeze.weight" in state_dict:
        backbone = "squeeze"
    return {"kind": "lpips", "model": {"backbone": backbone, "width": width}, "image_size": 224}


def describe_simsiam(flags: Flags, state_dict: StateDict) -> Description:
    """Describe SimSiam's encoder, of which the predictor is not kept."""
    shapes = shapes_of(state_dict, "encoder.")
    blocks = [count_blocks(shapes, f"layer{stage}.") for stage in range(1, 5)]
    model = {"width": shapes["conv1.weight"][0], "blocks": blocks}
    return {"kind": "simsiam", "model": model, "image_size": 224}


def describe_identity(flags: Flags, state_dict: StateDict) -> Description:
    """Describe the face recognition network of face-api, which is dlib's."""
    model = {
        "width": state_dict["conv32_down/conv/filters"].shape[0],
        "blocks": [
            count_blocks(state_dict, f"conv{size}_", "/conv2/conv/filters")
            - count_blocks(state_dict, f"conv{size}_down", "/conv2/conv/filters")
            for size in (32, 64, 128, 256)
        ],
        "outputs": state_dict["fc"].shape[0],
    }
    return {"kind": "dlib_resnet", "model": model, "image_size": 150}


# The kinds without flags
DESCRIBED_BY_SHAPES: dict[str, Callable[[Flags, StateDict], Description]] = {
    "latent-dpm": describe_latent_dpm,
    "steex-classifier": describe_steex,
    "mnac": describe_mnac,
    "vggface2": describe_vggface2,
    "inception": describe_inception,
    "lpips": describe_lpips,
    "simsiam": describe_simsiam,
    "face-api-identity": describe_identity,
}


def shapes_of(state_dict: StateDict, prefix: str) -> dict[str, tuple[int, ...]]:
    """Shapes by key, without the prefix if the keys have it."""
    found = {k.removeprefix(prefix): v.shape for k, v in state_dict.items() if k.startswith(prefix)}
    return found or {key: value.shape for key, value in state_dict.items()}


def count_blocks(shapes: Mapping[str, Any], start: str, end: str = ".conv2.weight") -> int:
    """Number of blocks of a stage."""
    return sum(key.startswith(start) and key.endswith(end) for key in shapes)


def densenet_arguments(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Arguments of `DenseNet` by the shapes of its features; its defaults where there are none."""
    if not shapes:
        return {}
    growth = shapes["denseblock1.denselayer1.conv2.weight"][0]
    counts = (count_blocks(shapes, f"denseblock{i}.") for i in range(1, 100))
    return {
        "growth": growth,
        "blocks": [count for count in counts if count],
        "init_features": shapes["conv0.weight"][0],
        "bn_size": shapes["denseblock1.denselayer1.conv1.weight"][0] // growth,
    }
