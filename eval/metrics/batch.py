"""Saved results as arrays: a few at a time, as every metric sees them."""

import collections
import dataclasses
import hashlib
import itertools
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np

from diffcf_jax import parallel, shipped
from diffcf_jax.errors import UserError
from diffcf_jax.files import read_image
from diffcf_jax.results.log import image_path

BATCH_SIZE = 64  # results that are read at a time
EACH = 16  # images per device and call, which bounds the memory


@dataclasses.dataclass(frozen=True)
class Batch:
    """At most BATCH_SIZE results; the images of a run are of one size.

    Attributes:
        rows: lines of results.jsonl without errors.
        inputs: the originals, float32 [B, H, W, 3] in [0, 1].
        images: the counterfactuals, the same.
        masks: where the squares are, bool [B, H, W]; None where there are none.
        allowed: where the images could change, bool [B, H, W]; None where everywhere.
    """

    rows: Sequence[Mapping[str, Any]]
    inputs: np.ndarray
    images: np.ndarray
    masks: np.ndarray | None
    allowed: np.ndarray | None = None

    @property
    def targets(self) -> list[float | str]:
        """What the predictions were to become."""
        return [row["target"] for row in self.rows]


# A group of metrics, of a batch and the explained regressor's predictions for its images [B]: one
# value per result under each metric's name, NaN where there is none.
Measure = Callable[[Batch, np.ndarray], Mapping[str, np.ndarray]]
# Images [B, H, W, 3] in [0, 1] to [B, D]
Features = Callable[[np.ndarray], np.ndarray]
# Twice as many images to [B]
Distance = Callable[[np.ndarray, np.ndarray], np.ndarray]


def measurable(
    folder: Path, rows: Sequence[Mapping[str, Any]]
) -> tuple[list[Mapping[str, Any]], list[str]]:
    """Returns the results whose images can be measured, and a sentence about each other one.

    Its images must be there and whole, those before and after in RGB and of the size that most
    have.

    Args:
        folder: the results folder.
        rows: lines of its results.jsonl without errors.
    """

    def look(row: Mapping[str, Any]) -> tuple[int, ...] | str:
        try:
            after, before = (read_rgb(image_path(folder, row, key)) for key in ("cf", "input"))
            for key in ("square_mask", "mask"):
                if row[key] is not None:
                    read_image(image_path(folder, row, key))
        except UserError as error:
            return str(error)
        if after.shape != before.shape:
            return f"{folder / row['cf']} is not of its input's size"
        return after.shape

    with ThreadPoolExecutor() as threads:
        found = list(threads.map(look, rows))
    sizes = collections.Counter(shape for shape in found if not isinstance(shape, str))
    usual = max(sizes, key=sizes.get, default=None)
    kept = [row for row, shape in zip(rows, found, strict=True) if shape == usual]
    left_out = [
        what if isinstance(what, str) else f"{folder / row['cf']} is of another size than most"
        for row, what in zip(rows, found, strict=True)
        if what != usual
    ]
    return kept, left_out


def batches(folder: Path, rows: Sequence[Mapping[str, Any]], masks: bool) -> Iterator[Batch]:
    """Yields the results in their order.

    Args:
        folder: the results folder.
        rows: lines of its results.jsonl without errors.
        masks: whether all rows have a square mask, which is read then.

    Raises:
        UserError: an image is missing, broken, or not of the size of the one it came from.
    """
    shape = None
    restricted = all(row["mask"] is not None for row in rows)
    for start in range(0, len(rows), BATCH_SIZE):
        part = rows[start : start + BATCH_SIZE]
        images = [read_rgb(image_path(folder, row, "cf")) for row in part]
        inputs = [read_rgb(image_path(folder, row, "input")) for row in part]
        shape = shape or images[0].shape
        for row, image, original in zip(part, images, inputs, strict=True):
            if image.shape != shape or original.shape != shape:
                raise UserError(f"{folder / row['cf']} is not of the size of the other images")
        squares = _read_masks(folder, part, "square_mask", shape) if masks else None
        allowed = _read_masks(folder, part, "mask", shape) if restricted else None
        yield Batch(part, np.stack(inputs), np.stack(images), squares, allowed)


def _read_masks(
    folder: Path, rows: Sequence[Mapping[str, Any]], key: str, shape: tuple[int, ...]
) -> np.ndarray:
    """The masks of some results, bool [B, H, W]."""
    paths = [image_path(folder, row, key) for row in rows]
    found = [read_image(path) > 127 for path in paths]
    for path, mask in zip(paths, found, strict=True):
        if mask.shape != shape[:2]:
            raise UserError(
                f"{path} is no mask of the images' size: run {shipped.command('explain')} again"
            )
    return np.stack(found)


class Kept:
    """The images of batches that pass by, in a temporary folder: there may be more than memory."""

    def __enter__(self) -> "Kept":
        self._folder = tempfile.TemporaryDirectory()
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    def passing(self, parts: Iterable[Batch]) -> Iterator[Batch]:
        """Yields the batches and keeps their images."""
        count = itertools.count()
        for batch in parts:
            for image in batch.images:
                np.save(self._path(next(count)), np.round(image * 255).astype(np.uint8))
            yield batch

    def image(self, i: int) -> np.ndarray:
        """The i-th image that has passed, uint8 [H, W, 3]."""
        return np.load(self._path(i))

    def _path(self, i: int) -> str:
        return f"{self._folder.name}/{i}.npy"


def read_rgb(path: Path) -> np.ndarray:
    """A saved image, float32 [H, W, 3] in [0, 1]."""
    image = read_image(path)
    if image.ndim != 3 or image.shape[2] != 3:
        raise UserError(f"{path} is not an RGB image: run {shipped.command('explain')} again")
    return (image / 255).astype(np.float32)


def in_batches(apply: Callable[..., Any], variables: Any, each: int = EACH) -> Callable[..., Any]:
    """A program of a network as a function of any number of images, or of several such arrays.

    The images are spread over the devices of this process. All calls have as many, filled up with
    zeros, so that the program is compiled once per image size.

    Args:
        apply: (variables, arrays [B, ...]) -> array [B, ...] or a tree of such; no image looks at
            another.
        variables: its first argument.
        each: images per device and call; fewer where BATCH_SIZE spread over the devices are fewer.
    """
    mesh = parallel.data_mesh(jax.local_devices())
    size = min(each, -(-BATCH_SIZE // mesh.size)) * mesh.size
    program = jax.jit(apply, out_shardings=parallel.batch_sharding(mesh))
    variables = parallel.replicate(variables, mesh)

    def part(arrays: Sequence[np.ndarray], start: int) -> Any:
        filled = [_padded(array[start : start + size], size) for array in arrays]
        return jax.device_get(program(variables, *parallel.shard_batch(filled, mesh)))

    def in_parts(*arrays: np.ndarray) -> Any:
        count = len(arrays[0])
        parts = [part(arrays, start) for start in range(0, count, size)]
        return jax.tree.map(lambda *found: np.concatenate(found)[:count], *parts)

    return in_parts


def remembering(look: Features) -> Features:
    """The same function, which computes each image once.

    An original has several targets and a control, and its features are asked for with each.
    """
    known: dict[tuple[Any, ...], np.ndarray] = {}

    def recall(images: np.ndarray) -> np.ndarray:
        keys = [(image.shape, _digest(image)) for image in images]
        new = {key: image for key, image in zip(keys, images, strict=True) if key not in known}
        if new:
            known.update(zip(new, look(np.stack(list(new.values()))), strict=True))
        return np.stack([known[key] for key in keys])

    return recall


def _digest(image: np.ndarray) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(image), digest_size=16).digest()


def _padded(array: np.ndarray, size: int) -> np.ndarray:
    """An array [B, ...] as [size, ...], with zeros."""
    rest = np.zeros([size - len(array), *array.shape[1:]], array.dtype)
    return np.concatenate([array, rest])
