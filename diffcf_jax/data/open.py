"""The data set that a config names, to explain or to train on."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from diffcf_jax.data.celeba_hq import CelebAHQ
from diffcf_jax.data.folder import ImageFolder
from diffcf_jax.data.labelled import open_labelled
from diffcf_jax.data.squares import Squares, VariedSquares
from diffcf_jax.errors import UserError

EXPLAINED = ("squares", "folder", "celeba-hq")
TRAINED_ON = ("squares", "labelled", "celeba-hq", "imdb-wiki")


def open_data(data: Mapping[str, Any], image_size: int) -> Squares | ImageFolder | CelebAHQ:
    """Open the images to explain.

    Args:
        data: `name`, one of `EXPLAINED`; `path`, the folder of all but the squares (with the
            squares it means a folder of images); `limit`; `convert` (folder); `attribute` and
            `attribute_targets` (CelebA-HQ: the targets of faces without and with the attribute, in
            the label's unit).
        image_size: width and height that the networks expect, in pixels.

    Raises:
        UserError: unknown name, no path, or whatever is wrong with the data set.
    """
    name, path = _name_and_path(data, EXPLAINED)
    limit = data["limit"]
    if limit is not None and limit < 1:
        raise UserError(f"config.data.limit={limit} must be at least 1.")
    if name == "squares" and not path:
        return Squares("validation", limit)
    if name == "celeba-hq":
        targets = _two_targets(data["attribute_targets"])
        return CelebAHQ(path, "test", image_size, limit, data["attribute"], targets)
    return ImageFolder(path, image_size, data["convert"], limit)


def open_training_data(data: Mapping[str, Any], image_size: int) -> tuple[Any, Any]:
    """Open the images to train on and the held-out ones.

    Both have `names`, a length, records by index, `labels` (float32 [N] in the label's unit, known
    without reading an image; NaN where there is none) and `unit` (None if not known).

    Args:
        data: `name`, one of `TRAINED_ON`; `path`, the folder of all but the squares; for "labelled"
            `labels`, the table, and `held_out`, the share of held-out images (see `open_labelled`);
            for "celeba-hq" `attribute`, which is the label; for the squares `distraction`,
            `ends` and `planted` of `VariedSquares`.
        image_size: width and height that the network expects, in pixels.

    Raises:
        UserError: unknown name, no path, or whatever is wrong with the data set.
    """
    name, path = _name_and_path(data, TRAINED_ON)
    if name == "squares":
        keys = ("distraction", "ends", "planted")
        varied = {key: data[key] for key in keys if data.get(key)}
        return VariedSquares(**varied) if varied else Squares("train"), Squares("validation")
    if name == "labelled":
        return open_labelled(path, data.get("labels"), image_size, data.get("held_out", 0.1))
    if name == "celeba-hq":
        attribute = data.get("attribute", "Young")
        return tuple(
            CelebAHQ(path, split, image_size, target_attribute=attribute)
            for split in ("train", "validation")
        )
    from diffcf_jax.data.imdb_wiki import open_imdb_wiki  # imports scipy.ndimage, which takes long

    return tuple(open_imdb_wiki(path, split, image_size) for split in ("train", "validation"))


def _name_and_path(data: Mapping[str, Any], names: Sequence[str]) -> tuple[str, str | None]:
    name, path = data.get("name"), data.get("path")
    if name not in names:
        raise UserError(
            f"Unknown data set config.data.name='{name}'; choose one of {', '.join(names)}."
        )
    if not path and name != "squares":
        raise UserError("config.data.path is empty; give the folder that holds the images.")
    return name, path


def _two_targets(values: Sequence[float]) -> tuple[float, float]:
    if len(values) != 2 or not all(math.isfinite(value) for value in values):
        raise UserError(
            f"config.data.attribute_targets={tuple(values)} must be two finite numbers: "
            "the targets without and with the attribute."
        )
    return float(values[0]), float(values[1])
