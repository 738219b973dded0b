"""The data set that a training config names."""

from collections.abc import Mapping
from typing import Any

from diffcf_jax.data.celeba_hq import CelebAHQ
from diffcf_jax.data.imdb_wiki import open_imdb_wiki
from diffcf_jax.data.labelled import open_labelled
from diffcf_jax.data.squares import Squares, VariedSquares
from diffcf_jax.errors import UserError

NAMES = ("squares", "labelled", "celeba-hq", "imdb-wiki")


def open_training_data(data: Mapping[str, Any], image_size: int) -> tuple[Any, Any]:
    """Opens the images to train on and the held-out ones.

    Both have `names`, a length, records by index, `labels` (float32 [N] in the label's unit, known
    without reading an image; NaN where there is none) and `unit` (None if not known).

    Args:
        data: `name`, one of `NAMES`; `path`, the folder of all but the squares; for "labelled"
            `labels`, the table, and `held_out`, the share of held-out images (see `open_labelled`);
            for "celeba-hq" `attribute`, which is the label; for the squares `distraction`
            and `ends` of `VariedSquares`.
        image_size: width and height that the network expects, in pixels.

    Raises:
        UserError: unknown name, no path, or whatever is wrong with the data set.
    """
    name, path = data.get("name"), data.get("path")
    if name not in NAMES:
        raise UserError(
            f"Unknown data set config.data.name='{name}'; choose one of {', '.join(NAMES)}."
        )
    if name == "squares":
        varied = {key: data[key] for key in ("distraction", "ends") if data.get(key)}
        return VariedSquares(**varied) if varied else Squares("train"), Squares("validation")
    if not path:
        raise UserError("config.data.path is empty; give the folder that holds the images.")
    if name == "labelled":
        return open_labelled(path, data.get("labels"), image_size, data.get("held_out", 0.1))
    if name == "celeba-hq":
        attribute = data.get("attribute", "Young")
        return tuple(
            CelebAHQ(path, split, image_size, target_attribute=attribute)
            for split in ("train", "validation")
        )
    return tuple(open_imdb_wiki(path, split, image_size) for split in ("train", "validation"))
