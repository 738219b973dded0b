"""Saved results as arrays: a few at a time, as every metric sees them."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from diffcf_jax import shipped
from diffcf_jax.errors import UserError
from diffcf_jax.files import read_image
from diffcf_jax.results.log import image_path

BATCH_SIZE = 64


@dataclasses.dataclass(frozen=True)
class Batch:
    """Results whose images are of one size, at most BATCH_SIZE.

    Attributes:
        rows: lines of results.jsonl without errors.
        inputs: the originals, float32 [B, H, W, 3] in [0, 1].
        images: the counterfactuals, the same.
        masks: where the squares are, bool [B, H, W]; None where there are none.
    """

    rows: Sequence[Mapping[str, Any]]
    inputs: np.ndarray
    images: np.ndarray
    masks: np.ndarray | None

    @property
    def targets(self) -> list[float | str]:
        """What the predictions were to become."""
        return [row["target"] for row in self.rows]


# A group of metrics, of a batch and the explained regressor's predictions for its images [B]: one
# value per result under each metric's name, NaN where there is none.
Measure = Callable[[Batch, np.ndarray], Mapping[str, np.ndarray]]
# Images [B, H, W, 3] in [0, 1], B at most BATCH_SIZE, to [B, D]
Features = Callable[[np.ndarray], np.ndarray]
# Twice as many images to [B]
Distance = Callable[[np.ndarray, np.ndarray], np.ndarray]


def batches(folder: Path, rows: Sequence[Mapping[str, Any]], masks: bool) -> Iterator[Batch]:
    """Yields the results in their order.

    Args:
        folder: the results folder.
        rows: lines of its results.jsonl without errors.
        masks: whether all rows have a square mask, which is read then.

    Raises:
        UserError: an image is missing, broken, or not of the size of the one it came from.
    """
    for start in range(0, len(rows), BATCH_SIZE):
        part = rows[start : start + BATCH_SIZE]
        images = [read_rgb(image_path(folder, row, "cf")) for row in part]
        inputs = [read_rgb(image_path(folder, row, "input")) for row in part]
        for row, image, original in zip(part, images, inputs, strict=True):
            if image.shape != images[0].shape or original.shape != images[0].shape:
                raise UserError(f"{folder / row['cf']} is not of the size of the other images")
        squares = None
        if masks:
            squares = np.stack([read_image(image_path(folder, r, "square_mask")) for r in part])
            squares = squares > 127
        yield Batch(part, np.stack(inputs), np.stack(images), squares)


def read_rgb(path: Path) -> np.ndarray:
    """A saved image, float32 [H, W, 3] in [0, 1]."""
    image = read_image(path)
    if image.ndim != 3 or image.shape[2] != 3:
        raise UserError(f"{path} is not an RGB image: run {shipped.command('explain')} again")
    return (image / 255).astype(np.float32)


def padded(array: np.ndarray, size: int = BATCH_SIZE) -> np.ndarray:
    """An array [B, ...] as [size, ...], with zeros, so that a program is compiled once."""
    rest = np.zeros([size - len(array), *array.shape[1:]], array.dtype)
    return np.concatenate([array, rest])


def in_batches(call: Callable[..., jax.Array], size: int = BATCH_SIZE) -> Callable[..., np.ndarray]:
    """A function of `size` images (or of several such arrays) as one of any number."""

    def in_parts(*arrays: np.ndarray) -> np.ndarray:
        count = len(arrays[0])
        parts = (
            call(*(padded(array[start : start + size], size) for array in arrays))
            for start in range(0, count, size)
        )
        return np.concatenate([np.asarray(part) for part in parts])[:count]

    return in_parts
