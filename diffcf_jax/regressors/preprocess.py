"""What a regressor does to an image before it reads it."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffcf_jax.errors import UserError
from diffcf_jax.jsonfile import read_json
from diffcf_jax.regressors import options
from diffcf_jax.regressors.resize import METHODS, resize

_GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601, as PIL's convert("L")
_PIL_FILTERS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box"}


@dataclasses.dataclass(frozen=True)
class Preprocess:
    """From images [B, H, W, 3] in [0, 1] to what a model takes, differentiable in the image.

    In this order: resize, centre crop, channels, `(range * x - mean) / std`, layout.

    Attributes:
        size: (height, width) to resize to; None: keep the images' own.
        crop: (height, width) to cut out of the middle after that; None: all.
        method: filter of the resize, see `resize`: with "bilinear" or "bicubic" and antialiasing
            that of PIL, and of torchvision for PIL images or with `antialias=True`.
        antialias: widen the filter where the image shrinks.
        range: value that white gets: 1 or 255.
        mean: per channel, in that range, in the order of `channels`.
        std: the same.
        channels: "rgb", "bgr" or "grey" (one channel, 0.299 R + 0.587 G + 0.114 B).
        layout: "nhwc" or "nchw"; None: as the model says.
    """

    size: tuple[int, int] | None = None
    crop: tuple[int, int] | None = None
    method: str = "bilinear"
    antialias: bool = True
    range: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    channels: str = "rgb"
    layout: str | None = None

    def __post_init__(self):
        count = 1 if self.channels == "grey" else 3
        for name in ("mean", "std"):
            if len(getattr(self, name)) not in (1, count):
                raise UserError(
                    f"preprocess has {len(getattr(self, name))} numbers in {name}: give one, or "
                    f"{count} for {self.channels} images."
                )
        if not all(self.std):
            raise UserError("preprocess has a 0 in std: give the spread of the training images.")

    def __call__(self, images: jax.Array) -> jax.Array:
        """Return what the model takes."""
        x = images
        if self.size is not None:
            x = resize(x, *self.size, self.method, self.antialias)
        if self.crop is not None:
            x = _centre_crop(x, *self.crop)
        if self.channels == "grey":
            x = x @ jnp.asarray(_GREY, x.dtype)[:, None]
        elif self.channels == "bgr":
            x = x[..., ::-1]
        factor = np.float32(self.range) / np.asarray(self.std, np.float32)
        shift = np.asarray(self.mean, np.float32) / np.asarray(self.std, np.float32)
        x = x * factor - shift
        return x.transpose(0, 3, 1, 2) if self.layout == "nchw" else x

    def __str__(self) -> str:
        default = Preprocess()
        return options.as_text(
            {
                field.name: _size_text(value) if field.name in ("size", "crop") else value
                for field in dataclasses.fields(self)
                if (value := getattr(self, field.name)) != getattr(default, field.name)
            }
        )


PRESETS = {
    "none": Preprocess(),
    "imagenet": Preprocess(size=(224, 224), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
}

_READERS = {
    "size": options.pixels, "crop": options.pixels, "method": options.choice(*METHODS),
    "antialias": options.yes_or_no, "range": options.number, "mean": options.numbers,
    "std": options.numbers, "channels": options.choice("rgb", "bgr", "grey"),
    "layout": options.choice("nchw", "nhwc"),
}  # fmt: skip


def parse_preprocess(text: str) -> Preprocess:
    """Read "imagenet", "none", or `size=64 range=255 mean=122.8,117,104.3 std=256`.

    The name of a preset may come first: `imagenet size=256 crop=224` changes two of its values.

    Raises:
        UserError: a key or value is none.
    """
    first, _, rest = text.strip().partition(" ")
    start = PRESETS.get(first)
    given = options.parse_options(rest if start else text, "preprocess", _READERS)
    return dataclasses.replace(start or Preprocess(), **given)


def found_beside(path: Path) -> Preprocess | None:
    """Return the pre-processing that files beside a model describe.

    These are `preprocessor_config.json` of Hugging Face, and `config.json` with `pretrained_cfg` of
    timm.

    Raises:
        UserError: a file is there and broken.
    """
    folder = path if path.is_dir() else path.parent
    for name, read in (("preprocessor_config.json", _hugging_face), ("config.json", of_timm)):
        if (folder / name).is_file():
            found = read_json(folder / name)
            try:
                preprocess = read(found)
            except (TypeError, ValueError, KeyError, AttributeError, IndexError) as error:
                raise UserError(
                    f"{folder / name} describes no pre-processing that can be read ({error!r}): "
                    "give preprocess=..."
                ) from None
            if preprocess is not None:
                return preprocess
    return None


def _hugging_face(found: Mapping[str, Any]) -> Preprocess:
    def pair(value: Any) -> tuple[int, int] | None:
        if isinstance(value, Mapping):
            if "shortest_edge" in value:
                value = value["shortest_edge"]
            else:
                return int(value["height"]), int(value["width"])
        return None if value is None else (int(value), int(value))

    factor = float(found.get("rescale_factor", 1 / 255)) * 255 if found.get(
        "do_rescale", True
    ) else 255.0  # fmt: skip
    normalise = found.get("do_normalize", True)
    return Preprocess(
        size=pair(found.get("size")) if found.get("do_resize", True) else None,
        crop=pair(found.get("crop_size")) if found.get("do_center_crop", False) else None,
        method=_PIL_FILTERS[int(found.get("resample", 2))],
        range=1.0 if abs(factor - 1) < 1e-6 else factor,
        mean=tuple(map(float, found["image_mean"])) if normalise else (0.0,),
        std=tuple(map(float, found["image_std"])) if normalise else (1.0,),
    )


def of_timm(found: Mapping[str, Any]) -> Preprocess | None:
    """Return the pre-processing of a config of timm, if it has a `pretrained_cfg`."""
    config = found.get("pretrained_cfg")
    if not isinstance(config, Mapping):
        return None
    _, height, width = map(int, config["input_size"])
    share = float(config.get("crop_pct") or 1)
    larger = int(height / share), int(width / share)
    return Preprocess(
        size=larger,
        crop=None if larger == (height, width) else (height, width),
        method=config.get("interpolation", "bilinear"),
        mean=tuple(map(float, config["mean"])),
        std=tuple(map(float, config["std"])),
    )


def _size_text(value: tuple[int, int] | None) -> str:
    return "" if value is None else f"{value[0]}x{value[1]}"


def _centre_crop(x: jax.Array, height: int, width: int) -> jax.Array:
    if height > x.shape[1] or width > x.shape[2]:
        raise UserError(
            f"preprocess crops {height}x{width} pixels out of {x.shape[1]}x{x.shape[2]}: give a "
            "size that is at least as large."
        )
    top, left = round((x.shape[1] - height) / 2), round((x.shape[2] - width) / 2)
    return x[:, top : top + height, left : left + width]
