"""A user's own data set: a folder of images and a table with the label of each."""

import hashlib
import os
import pathlib
from collections.abc import Sequence

import numpy as np

from diffcf_jax.data.folder import list_images
from diffcf_jax.data.image import load_image
from diffcf_jax.data.record import Record
from diffcf_jax.data.table import read_table
from diffcf_jax.errors import UserError


class LabelledImages:
    """Images in a folder, with a label each; they are read only when they are asked for.

    Images of any kind and size are brought to 8-bit RGB of `image_size` (see `load_image`).

    Attributes:
        path: the folder.
        names: of the images, posix, relative to the folder.
        labels: float32 [N], in `unit`; NaN where there is none.
        image_size: width and height of the records' images, in pixels.
        unit: of the labels, such as "years"; None if not known.
        total: images of the data set that these are a part of.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        names: Sequence[str],
        labels: np.ndarray,
        image_size: int,
        unit: str | None = None,
        total: int | None = None,
    ):
        self.path = pathlib.Path(path)
        self.names = list(names)
        self.labels = np.asarray(labels, np.float32)
        self.image_size = image_size
        self.unit = unit
        self.total = total or len(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, i: int) -> Record:
        i = range(len(self))[i]
        image = load_image(self.path / self.names[i], self.image_size, convert=True)
        y = float(self.labels[i])
        return Record(id=i, name=self.names[i], image=image, y=None if np.isnan(y) else y)


def open_labelled(
    path: str | os.PathLike,
    labels: str | os.PathLike | None,
    image_size: int,
    held_out: float = 0.1,
) -> tuple[LabelledImages, LabelledImages]:
    """Open a folder of images with its table `name,y`, split in two by the images' names.

    Args:
        path: the folder; images may lie in folders below it.
        labels: the table, UTF-8, comma-separated: every image with its label, a number in any unit.
            None or "": there are no labels; that suffices for a diffusion model.
        image_size: width and height that the network expects, in pixels.
        held_out: share of the images that are not trained on, see `is_held_out`.

    Returns:
        The images to train on and the held-out ones, each sorted by name.

    Raises:
        UserError: no such folder, no image in it, a bad table, images and labels that do not match,
            labels that are all equal or too close to each other for float32, or a share that
            leaves one of the two without images.
    """
    path = pathlib.Path(path).expanduser()
    names = list_images(path)
    values = np.full([len(names)], np.nan, np.float32)
    if labels:
        values = _read_labels(pathlib.Path(labels).expanduser(), path, names)
    if not 0 < held_out < 1:
        raise UserError(f"config.data.held_out={held_out} must be between 0 and 1, such as 0.1")
    held = is_held_out(names, held_out)
    if held.all() or not held.any():
        raise UserError(
            f"config.data.held_out={held_out} of the {len(names)} images in {path} leaves none to "
            f"{'train on' if held.all() else 'hold out'}: change it, or add images"
        )

    def part(chosen: np.ndarray) -> LabelledImages:
        rows = np.flatnonzero(chosen)
        chosen_names = [names[i] for i in rows]
        return LabelledImages(path, chosen_names, values[rows], image_size, total=len(names))

    return part(~held), part(held)


def is_held_out(names: Sequence[str], share: float) -> np.ndarray:
    """Which images are held out, bool [N]: those with `sha256(name) / 2^256 < share`.

    An image's name decides alone, so that it stays on its side when other images come or go, and
    every network that is trained on the folder sees the same split.
    """
    hashes = (hashlib.sha256(name.encode()).digest()[:8] for name in names)
    return np.array([int.from_bytes(digest, "big") / 2**64 < share for digest in hashes])


def _read_labels(table: pathlib.Path, folder: pathlib.Path, names: list[str]) -> np.ndarray:
    rows = read_table(table, set(names), ["y"])
    without = [name for name in names if name not in rows]
    if without:
        count = "1 image" if len(without) == 1 else f"{len(without)} of {len(names)} images"
        raise UserError(
            f'{table} has no label for {count} in {folder}, such as "{without[0]}": add lines '
            "name,y or move the images out of the folder"
        )
    labels = np.array([rows[name][0] for name in names], np.float64)
    if labels.min() == labels.max():
        raise UserError(
            f"{table} gives every image the label {labels[0]:g}: there is nothing to learn"
        )
    # The networks compute in float32, which has 7 digits.
    mean, spread = labels.mean(), labels.std()
    if spread < max(1e-5 * abs(mean), np.finfo(np.float32).tiny):
        raise UserError(
            f"{table} gives labels around {mean:g} that differ by {spread:g}, too little for "
            "float32: subtract the same number from all of them, or write them in a smaller unit"
        )
    return labels.astype(np.float32)
