"""Names and layouts of the originals' weights: flax path <-> state-dict key.

Every function maps in one direction, from the flax path to the original's key, so that reading and
writing cannot disagree: reading looks each key up, writing lists them.
"""

import functools
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from diffcf_jax.checkpoint.tfjs import TFJS_KINDS, tfjs_key

Path = tuple[str, ...]

# What an original's checkpoint writes before the keys of the network itself.
PREFIXES = {
    "ddpm": "",
    "diffae": "ema_model.",
    "latent-dpm": "ema_model.latent_net.",
    "densenet-regressor": "model.",
    "resnet-regressor": "model.",
    "steex-classifier": "",
    "mnac": "",
    "vggface2": "",
    "inception": "",
    "lpips": "",
    "simsiam": "encoder.",
    **dict.fromkeys(TFJS_KINDS, ""),
}
# Keys without a counterpart: counters, the weights before averaging, other networks in the file,
# identities and classes, layers that are listed twice, constants that are module arguments.
IGNORED = {
    "ddpm": r"$^",
    "diffae": r"model\.|x_T$|conds_(mean|std)$|ema_model\.latent_net\.",
    "latent-dpm": r"model\.|x_T$|ema_model\.(?!latent_net\.)|.*\.cond_layers\.1\.",
    "densenet-regressor": r".*num_batches_tracked$|model\.(mu|sigma)$",
    "resnet-regressor": r".*num_batches_tracked$",
    "steex-classifier": r".*num_batches_tracked$",
    "mnac": r".*num_batches_tracked$",
    "vggface2": r".*num_batches_tracked$|fc\.",
    "inception": r".*num_batches_tracked$|fc\.",
    "lpips": r"classifier\.",
    "simsiam": r".*num_batches_tracked$|predictor\.",
    "face-api-age": r"fc/gender/",
    "face-api-identity": r"$^",
    "faceres-age": r"gender_pred/|.*_relu/|global_pooling/",
}
LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}
UNET_PARTS = {
    "in_norm": "in_layers.0",
    "in_conv": "in_layers.2",
    "emb_proj": "emb_layers.1",
    "cond_proj": "cond_emb_layers.1",
    "out_norm": "out_layers.0",
    "out_conv": "out_layers.3",
    "skip_conv": "skip_connection",
}
UNET_OUTER = {
    "time_embed_0": "time_embed.0",
    "time_embed_2": "time_embed.2",
    "out_norm": "out.0",
    "out_conv": "out.2",
    "out_proj": "out.3",
}
CAFFE_PARTS = {
    "conv1": "1x1_reduce",
    "conv2": "3x3",
    "conv3": "1x1_increase",
    "downsample_conv": "1x1_proj",
    "bn1": "1x1_reduce_bn",
    "bn2": "3x3_bn",
    "bn3": "1x1_increase_bn",
    "downsample_bn": "1x1_proj_bn",
}


def torch_key(kind: str, path: Path) -> str:
    """Return the original's state-dict key of a flax variable.

    Args:
        kind: an original, a key of `PREFIXES`.
        path: collection, modules, leaf, as ("params", "middle_block_0", "in_norm", "scale").
    """
    collection, *modules, leaf = path
    if kind in TFJS_KINDS:
        return tfjs_key(kind, [*modules, leaf])
    if collection == "stats":  # of the latent DPM, beside its network
        return {"z_mean": "conds_mean", "z_std": "conds_std"}[leaf]
    layer = {
        "ddpm": _unet_layer,
        "diffae": _diffae_layer,
        "latent-dpm": _latent_layer,
        "densenet-regressor": _densenet_regressor_layer,
        "resnet-regressor": _resnet_layer,
        "steex-classifier": _steex_layer,
        "mnac": _mnac_layer,
        "vggface2": _resnet_layer,
        "inception": ".".join,
        "lpips": _lpips_layer,
        "simsiam": _simsiam_layer,
    }[kind](modules)
    return f"{PREFIXES[kind]}{layer}.{LEAVES[leaf]}"


def torch_shape(path: Path, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape that a flax variable has in PyTorch."""
    if path[0] == "stats":
        return (1, *shape)
    if path[-1] != "kernel":
        return shape
    if len(shape) == 4:  # [H, W, I, O] -> [O, I, H, W]
        return shape[3], shape[2], shape[0], shape[1]
    # [I, O] -> [O, I]; 1x1 convolutions in one or two dimensions are linear layers here.
    ones = {"qkv": 1, "proj_out": 1, "out_proj": 2}.get(path[-2], 0)
    return (shape[1], shape[0]) + (1,) * ones


def from_torch(path: Path, array: np.ndarray) -> np.ndarray:
    """Lay an original's array out for flax, as float32."""
    if path[0] == "stats":
        array = array[0]
    elif path[-1] == "kernel" and array.ndim == 4 and path[-2] != "out_proj":
        array = array.transpose(2, 3, 1, 0)
    elif path[-1] == "kernel":
        array = array.reshape(array.shape[:2]).T
    with np.errstate(over="ignore"):  # what float32 cannot hold is refused by its name later
        return np.ascontiguousarray(array, np.float32)


def to_torch(path: Path, array: np.ndarray) -> np.ndarray:
    """Lay a flax variable out for the original."""
    shape = torch_shape(path, array.shape)
    if path[-1] == "kernel":
        array = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T
    return np.ascontiguousarray(array).reshape(shape)


def leaves(variables: Any) -> Iterator[tuple[Path, Any]]:
    """Iterate over the paths and arrays (or shapes) of a tree of variables."""
    for path, leaf in jax.tree_util.tree_flatten_with_path(variables)[0]:
        yield tuple(entry.key for entry in path), leaf


def names_in(kind: str, state_dict: Mapping[str, Any]) -> Callable[[Path], str]:
    """Return `torch_key` of an original, without its prefix where no key of a state dict has it."""
    prefix = PREFIXES[kind]
    if any(key.startswith(prefix) for key in state_dict):
        return functools.partial(torch_key, kind)
    return lambda path: torch_key(kind, path).removeprefix(prefix)


def unwrapped(state_dict: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
    """Drop the names by which PyTorch's wrappers mark the weights of the module that they wrap.

    `torch.compile` puts "_orig_mod." before the names, `DataParallel` "module.", below the name of
    whatever holds the wrapped module.
    """
    names = {key: re.sub(r"(^|(?<=\.))(_orig_mod|module)\.", "", key) for key in state_dict}
    if len(set(names.values())) < len(names):
        return state_dict  # not wrappers: the names mean different weights
    return {names[key]: array for key, array in state_dict.items()}


def write_state_dict(kind: str, variables: Any) -> dict[str, np.ndarray]:
    """Name and lay out a network's variables as the original does, with every key that it has.

    Raises:
        KeyError: the network has a part that the original has not.
    """
    state_dict = {}
    for path, array in leaves(variables):
        key = torch_key(kind, path)
        state_dict[key] = to_torch(path, np.asarray(array))
        if path[-1] == "var":
            counter = key.removesuffix("running_var") + "num_batches_tracked"
            state_dict[counter] = np.zeros((), np.int64)
        if kind == "latent-dpm" and "linear_emb" in path:
            alias = key.replace("linear_emb", "cond_layers.1")
            state_dict[alias] = state_dict[key]
    return state_dict


def _unet_layer(modules: list[str]) -> str:
    """input_blocks_1_0/in_norm -> input_blocks.1.0.in_layers.0, and so on."""
    block, *part = modules
    if block in UNET_OUTER:
        return UNET_OUTER[block]
    family, address = re.fullmatch(r"([a-z]+_blocks?)_([\d_]+)", block).groups()
    name = f"{family}.{address.replace('_', '.')}"
    if not part:
        return name
    if part == ["conv"]:
        return f"{name}.{'op' if family == 'input_blocks' else 'conv'}"
    return f"{name}.{UNET_PARTS.get(part[0], part[0])}"


def _diffae_layer(modules: list[str]) -> str:
    """The conditional UNet lies at the root of the original, the encoder below it."""
    network, *rest = modules
    layer = _unet_layer(rest)
    if network == "encoder":
        return f"encoder.{layer}"
    return layer.replace("time_embed.", "time_embed.time_embed.")


def _latent_layer(modules: list[str]) -> str:
    """layers_1/linear -> layers.1.linear, layers_9_linear -> layers.9.linear."""
    name = re.sub(r"(layers|time_embed)_(\d+)", r"\1.\2", ".".join(modules))
    return name.replace("_linear", ".linear")


def _resnet_layer(modules: list[str]) -> str:
    """layer1_0/downsample_conv -> layer1.0.downsample.0."""
    name = re.sub(r"^layer(\d)_", r"layer\1.", ".".join(modules))
    return name.replace("downsample_conv", "downsample.0").replace("downsample_bn", "downsample.1")


def _simsiam_layer(modules: list[str]) -> str:
    """A ResNet with a projection: fc_0 -> fc.0."""
    return _resnet_layer(modules).replace("fc_", "fc.")


def _lpips_layer(modules: list[str]) -> str:
    """lin0 -> lin0.model.1 (behind a dropout), features_3/squeeze -> features.3.squeeze."""
    if modules[0].startswith("lin"):
        return f"{modules[0]}.model.1"
    return ".".join(modules).replace("features_", "features.")


def _densenet_regressor_layer(modules: list[str]) -> str:
    """The features and the head are a sequence inside a normalising wrapper."""
    if modules == ["classifier"]:
        return "classifier.1"
    return f"classifier.0.feat_extract.features.{_densenet_features(modules)}"


def _steex_layer(modules: list[str]) -> str:
    """The features are wrapped twice."""
    if modules == ["classifier"]:
        return "classifier"
    return f"feat_extract.feat_extract.features.{_densenet_features(modules)}"


def _densenet_features(modules: list[str]) -> str:
    """denseblock1_denselayer2/norm1 -> denseblock1.denselayer2.norm1."""
    return ".".join(modules).replace("_denselayer", ".denselayer")


def _mnac_layer(modules: list[str]) -> str:
    """layer1_0/conv1 -> feat_extract.conv2_1_1x1_reduce: Caffe counts the stem as stage 1."""
    if modules == ["classifier"]:
        return "classifier"
    if len(modules) == 1:
        return f"feat_extract.conv1_7x7_s2{'_bn' if modules[0] == 'bn1' else ''}"
    stage, block = re.fullmatch(r"layer(\d)_(\d+)", modules[0]).groups()
    return f"feat_extract.conv{int(stage) + 1}_{int(block) + 1}_{CAFFE_PARTS[modules[1]]}"
