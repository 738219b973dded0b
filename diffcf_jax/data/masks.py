"""Where the images to explain may change: a box, or a folder of masks under the images' names."""

import os
import pathlib
import re
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from diffcf_jax.data.folder import SUFFIXES, ImageFolder, list_images
from diffcf_jax.data.image import load_image, shown_size
from diffcf_jax.errors import UserError

CONTROLS = ("", "inverse", "random")

_BOX = re.compile(r"\s*(\d{1,6})" + r"\s*,\s*(\d{1,6})" * 3 + r"\s*", re.ASCII)


class Masks:
    """The mask of each image of a data set, for a config's `data`.

    Args:
        data: may hold `masks`, a folder of images with the names of those that are explained, of
            any format, white where an image may change; or `mask`, "x0,y0,x1,y1", a box in the
            networks' pixels from the upper left corner, x1 and y1 excluded; and `mask_control`,
            see `control_mask`.
        records: the data set.
        image_size: width and height of its images, in pixels.
        seed: of the random control.

    Raises:
        UserError: there are masks of both kinds, or a control without any; the box is none or lies
            outside of the images; the folder is missing or empty, or names a mask twice.
    """

    def __init__(self, data: Mapping[str, Any], records: Any, image_size: int, seed: int):
        folder, box = data.get("masks") or "", data.get("mask") or ""
        self._control = data.get("mask_control") or ""
        check_control(self._control, bool(folder or box), "config.data.mask_control")
        if folder and box:
            raise UserError("Both config.data.masks and config.data.mask are set; give one.")
        self._records, self._size, self._seed = records, image_size, seed
        self._box = _parse_box(box, image_size) if box else None
        self._folder = pathlib.Path(folder).expanduser() if folder else None
        self._files = _by_stem(self._folder) if self._folder else {}

    def of(self, name: str, image: np.ndarray) -> np.ndarray | None:
        """Return the mask of an image, bool [H, W], True where it may change; None: everywhere.

        Args:
            name: of the image.
            image: uint8 [H, W, 3].

        Raises:
            UserError: the mask is missing, unreadable, of another size than the image, or empty.
        """
        mask = self._box
        if self._folder:
            if _stem(name) not in self._files:
                raise UserError(
                    f"{name} has no mask: add one of that name, with the suffix of any image, to "
                    f"config.data.masks={self._folder}."
                )
            mask = self._read(self._folder / self._files[_stem(name)], name)
        return mask if mask is None else control_mask(mask, self._control, image, self._seed, name)

    def _read(self, path: pathlib.Path, name: str) -> np.ndarray:
        expected = self._size, self._size
        if isinstance(self._records, ImageFolder):
            expected = shown_size(self._records.path / name)
        if (size := shown_size(path)) != expected:
            raise UserError(
                f"{path} is of {size[0]}x{size[1]} pixels and its image of "
                f"{expected[0]}x{expected[1]}: give a mask of the image's size."
            )
        mask = load_image(path, self._size, convert=True).mean(-1) > 127
        if not mask.any():
            raise UserError(f"{path} is nowhere white: paint white what may change.")
        return mask


def control_mask(
    mask: np.ndarray, control: str, image: np.ndarray, seed: int, name: str
) -> np.ndarray:
    """Return a mask, or the one that a reader compares it with.

    "inverse" allows what the mask forbids. "random" moves the mask by a random offset, around the
    edges: its shape and area stay, and the seed and the image's content decide on the offset.

    Args:
        mask: bool [H, W], True where the image may change.
        control: one of `CONTROLS`.
        image: uint8 [H, W, 3], whose content seeds the offset.
        seed: of the run.
        name: of the image, for the message.

    Raises:
        UserError: the inverse is empty.
    """
    if control == "inverse":
        if mask.all():
            raise UserError(f"The mask of {name} is white everywhere: its inverse allows nothing.")
        return ~mask
    if control == "random":
        random = np.random.default_rng([seed, zlib.crc32(np.ascontiguousarray(image))])
        offset = 1 + random.integers(mask.size - 1)  # 0 would be the mask itself
        return np.roll(mask, divmod(int(offset), mask.shape[1]), (0, 1))
    return mask


def control_masks(
    masks: np.ndarray | None, control: str, images: np.ndarray, seed: int, names: Sequence[str]
) -> list[np.ndarray | None]:
    """Return `control_mask` of each of B images in [0, 1]; None where there are no masks."""
    if masks is None:
        return [None] * len(images)
    pixels = np.round(images * 255).astype(np.uint8)
    return [
        control_mask(mask, control, image, seed, name)
        for mask, image, name in zip(masks, pixels, names, strict=True)
    ]


def check_control(control: Any, has_masks: bool, name: str) -> None:
    """Refuse a control that is not known, or that has no mask.

    Raises:
        UserError: it says so of `name`.
    """
    if control not in CONTROLS:
        raise UserError(f"{name}='{control}' must be inverse or random, or empty.")
    if control and not has_masks:
        raise UserError(f"{name}={control} needs a mask to compare with; give one.")


def _parse_box(text: str, size: int) -> np.ndarray:
    match = _BOX.fullmatch(str(text).strip("()[] "))
    x0, y0, x1, y1 = map(int, match.groups()) if match else (0, 0, 0, 0)
    if not (x0 < x1 and y0 < y1):
        raise UserError(
            f"config.data.mask='{text}' is no box; give x0,y0,x1,y1 in pixels, such as "
            f"0,0,{size},{size // 2} for the upper half."
        )
    if x1 > size or y1 > size:
        raise UserError(
            f"config.data.mask='{text}' reaches beyond the images of {size}x{size} pixels; give a "
            "box inside of them."
        )
    mask = np.zeros((size, size), bool)
    mask[y0:y1, x0:x1] = True
    return mask


def _by_stem(folder: pathlib.Path) -> dict[str, str]:
    files: dict[str, str] = {}
    for name in list_images(folder, "config.data.masks"):
        other = files.setdefault(_stem(name), name)
        if other != name:
            raise UserError(
                f"{folder} has {other} and {name}, two masks of one image: remove one of them."
            )
    return files


def _stem(name: str) -> str:
    stem, suffix = os.path.splitext(name)
    return stem if suffix.lower() in SUFFIXES else name
