"""What a network.json may say: every value has the type and range that its reader expects."""

import dataclasses
import math
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn

from diffcf_jax.diffusion.schedule import make_diffusion
from diffcf_jax.errors import UserError
from diffcf_jax.models.caffe_resnet import CaffeResNet
from diffcf_jax.models.densenet import DenseNet
from diffcf_jax.models.diffae import DiffAE, SemanticEncoder
from diffcf_jax.models.dlib_resnet import DlibResNet
from diffcf_jax.models.inception import InceptionV3
from diffcf_jax.models.latent_dpm import LatentDPM
from diffcf_jax.models.lpips import LPIPS
from diffcf_jax.models.mobilenet import MobileNetAge
from diffcf_jax.models.resnet import ResNet
from diffcf_jax.models.simsiam import SimSiam
from diffcf_jax.models.tiny_xception import TinyXception
from diffcf_jax.models.unet import UNet

MODULES = {
    "ddpm": UNet,
    "diffae": DiffAE,
    "latent_dpm": LatentDPM,
    "resnet": ResNet,
    "densenet": DenseNet,
    "caffe_resnet": CaffeResNet,
    "inception": InceptionV3,
    "lpips": LPIPS,
    "simsiam": SimSiam,
    "tiny_xception": TinyXception,
    "mobilenet": MobileNetAge,
    "dlib_resnet": DlibResNet,
}
REGRESSORS = ("resnet", "densenet", "tiny_xception", "mobilenet")
GENERATORS = ("ddpm", "diffae", "latent_dpm")
REQUIRED = ("kind", "model", "image_size")

# Far above any network, and small enough that building one comes to an end.
_LARGEST = 1 << 16
_DEEPEST = 512
_DEPTHS = ("blocks", "num_res_blocks", "layers")
_LARGEST_STEPS = 100_000


def check_description(description: Any) -> None:
    """Refuse a description (see `Network.description`) that describes no network.

    Raises:
        UserError: a key is missing, or a value has the wrong type or range; the sentence names it.
    """
    if not isinstance(description, Mapping):
        raise UserError("It must be an object in braces.")
    missing = [key for key in REQUIRED if key not in description]
    if missing:
        raise UserError(f"It lacks the keys {', '.join(missing)}.")
    kind, size = description["kind"], description["image_size"]
    if not isinstance(kind, str) or kind not in MODULES:
        raise UserError(f"Unknown network kind {_shown(kind)}; choose one of {', '.join(MODULES)}.")
    if not (_is_whole(size, 1) or (size is None and kind == "latent_dpm")):
        raise UserError(f"image_size is {_shown(size)} instead of a number of pixels.")
    for key, fits, wanted in (
        ("unit", lambda v: v is None or isinstance(v, str), "text or null"),
        ("mean", _is_finite, "a finite number"),
        ("scale", lambda v: _is_finite(v) and v > 0, "a positive number"),
        ("labels", _is_interval, "their lowest and highest value"),
        ("digest", lambda v: isinstance(v, str), "text"),
    ):
        if key in description and not fits(description[key]):
            raise UserError(f"{key} is {_shown(description[key])} instead of {wanted}.")
    _check_arguments(MODULES[kind], description["model"], "model")
    if kind in GENERATORS or "diffusion" in description:
        _check_diffusion(description.get("diffusion"))


def _check_arguments(module: type[nn.Module], arguments: Any, where: str) -> None:
    """Refuse arguments of other types than the module's fields have."""
    if not isinstance(arguments, Mapping):
        raise UserError(f"{where} is {_shown(arguments)} instead of an object in braces.")
    hints = typing.get_type_hints(module)
    fields = {field.name for field in dataclasses.fields(module)} - {"parent", "name"}
    for name, value in arguments.items():
        if name not in fields:
            raise UserError(
                f"The {where} arguments do not fit a {module.__name__}: there is no {name[:100]!r}."
            )
        if not _fits(name, value, hints[name]):
            raise UserError(f"{where}.{name} is {_shown(value)} instead of {_words(hints[name])}.")
        depth = value if isinstance(value, Sequence) else [value]
        if name in _DEPTHS and sum(depth) > _DEEPEST:
            raise UserError(f"{where}.{name} is {_shown(value)}, deeper than {_DEEPEST} layers.")
    if module is DiffAE:
        for name, part in (("unet", UNet), ("encoder", SemanticEncoder)):
            _check_arguments(part, arguments.get(name), f"{where}.{name}")


def _check_diffusion(diffusion: Any) -> None:
    """Refuse arguments that make no diffusion process."""
    if not isinstance(diffusion, Mapping):
        raise UserError(f"diffusion is {_shown(diffusion)} instead of an object in braces.")
    steps = diffusion.get("steps", 1)
    if not (_is_whole(steps, 1) and steps <= _LARGEST_STEPS):
        raise UserError(f"diffusion.steps is {_shown(steps)}, not between 1 and {_LARGEST_STEPS}.")
    try:
        make_diffusion(**diffusion)
    except UserError:
        raise
    except Exception as error:  # arguments of any type
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"diffusion describes no process: {reason[:200]}.") from None


def _fits(name: str, value: Any, hint: Any) -> bool:
    """Whether a value of a JSON file may be given to an argument of that name and type hint."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(name, value, part) for part in parts)
    if origin is typing.Literal:
        return value in parts
    if origin is Sequence:
        # Widths may be halves, as 0.5 times the channels.
        return (
            isinstance(value, list | tuple)
            and len(value) <= _DEEPEST
            and all(_is_finite(item) and abs(item) <= _LARGEST for item in value)
        )
    if hint is bool:
        return isinstance(value, bool)
    if hint is int:
        return _is_whole(value, 0 if name == "stem_padding" else 1)
    if hint is float:
        return _is_finite(value)
    if hint is types.NoneType:
        return value is None
    return True


def _words(hint: Any) -> str:
    """Say what an argument with a type hint may be."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " or ".join(_words(part) for part in typing.get_args(hint))
    if typing.get_origin(hint) is typing.Literal:
        return " or ".join(map(repr, typing.get_args(hint)))
    if typing.get_origin(hint) is Sequence:
        return f"a list of numbers up to {_LARGEST}"
    return {bool: "true or false", int: "a whole number", float: "a number"}.get(hint, "null")


def _is_whole(value: Any, least: int) -> bool:
    return type(value) is int and least <= value <= _LARGEST


def _is_finite(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 2.0**127 and math.isfinite(value)


def _is_interval(value: Any) -> bool:
    pair = isinstance(value, list | tuple) and len(value) == 2
    return pair and all(map(_is_finite, value)) and value[0] < value[1]


def _shown(value: Any) -> str:
    """Write a value for a message, cut where it is long."""
    if isinstance(value, Mapping | list):
        return "an object" if isinstance(value, Mapping) else "a list"
    try:
        text = repr(value)
    except ValueError:  # a number of thousands of digits
        return "a very large number"
    return text if len(text) <= 100 else f"{text[:100]}..."
