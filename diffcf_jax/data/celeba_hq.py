"""CelebA-HQ: 30,000 faces with 40 attributes, in the partition of CelebA.

The folder is that of CelebAMask-HQ, with CelebA's partition file added:

    CelebA-HQ-img/0.jpg ... 29999.jpg
    CelebAMask-HQ-attribute-anno.txt
    CelebA-HQ-to-CelebA-mapping.txt
    list_eval_partition.txt

Without `CelebA-HQ-img` the images are taken from `celeb_a_hq/256` in the same folder (it may be a
link), as TensorFlow Datasets prepared it; that needs `pip install diffcf_jax[tfds]`.
"""

import os
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from diffcf_jax.data.image import load_image, to_square_rgb
from diffcf_jax.data.record import Record
from diffcf_jax.errors import UserError

IMAGES = "CelebA-HQ-img"
TFDS = "celeb_a_hq/256"
ATTRIBUTES = "CelebAMask-HQ-attribute-anno.txt"
MAPPING = "CelebA-HQ-to-CelebA-mapping.txt"
PARTITION = "list_eval_partition.txt"
# Numbers in the partition file. Of CelebA-HQ 24,183, 2,993 and 2,824 images.
SPLITS = {"train": "0", "validation": "1", "test": "2"}

_MASK_HQ = "it comes with CelebAMask-HQ, https://github.com/switchablenorms/CelebAMask-HQ"
_SOURCES = {
    ATTRIBUTES: _MASK_HQ,
    MAPPING: _MASK_HQ,
    PARTITION: "it lies in the folder Eval of CelebA, "
    "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html",
}


class CelebAHQ:
    """CelebA-HQ, in the order of its numbers; images are read only when they are asked for.

    A record's target moves its face to the other side of an attribute: by default to 0.8 where
    `Young` is 1 and to 0.1 where it is 0, which are ages over 100 (the paper's experiment). Its
    true value is unknown, because an attribute is not in the unit of a regressor.

    Args:
        path: the folder that the module describes; "~" is the home directory.
        split: "train", "validation", "test" (the 2,824 images that the paper explains) or "all",
            which asks for no partition file.
        image_size: width and height of the records' images, in pixels.
        limit: keep only the first `limit` images. None: all of them.
        target_attribute: one of `attribute_names`; it decides on targets and is the label.
        targets: of images without and with the attribute, in the unit of the regressor.

    Attributes:
        names: "0.jpg" and so on.
        attribute_names: of the 40 attributes.
        attributes: bool [N, 40].
        labels: float32 [N], 1 where an image has the target attribute, else 0.
        unit: None.

    Raises:
        UserError: a file is missing or is not what it should be; unknown split or attribute.
    """

    unit = None

    def __init__(
        self,
        path: str | os.PathLike,
        split: str = "test",
        image_size: int = 256,
        limit: int | None = None,
        target_attribute: str = "Young",
        targets: Sequence[float] = (0.1, 0.8),
    ):
        self.path = pathlib.Path(path).expanduser()
        self.split = split
        self.image_size = image_size
        self.targets = tuple(targets)
        self.attribute_names, attributes = _read_attributes(_find(self.path, ATTRIBUTES))
        if target_attribute not in self.attribute_names:
            raise UserError(
                f'CelebA-HQ has no attribute "{target_attribute}": use one of '
                f"{', '.join(self.attribute_names)}"
            )
        wanted = _names_of_split(self.path, split)
        names = [name for name in attributes if wanted is None or name in wanted]
        self._images = _open_images(self.path)
        missing = [name for name in names if name not in self._images]
        if missing:
            raise UserError(
                f"{self._images.where} lacks {len(missing)} of the {len(names)} images (split "
                f"{split}), such as {missing[0]}: {_MASK_HQ}"
            )
        self.names = names[:limit]
        if not self.names:
            raise UserError(f"{self.path} has no image of the split {split}")
        self.attributes = np.array([attributes[name] for name in self.names])
        column = self.attribute_names.index(target_attribute)
        self.labels = self.attributes[:, column].astype(np.float32)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, i: int) -> Record:
        i = range(len(self))[i]
        name = self.names[i]
        image = self._images.read(name, self.image_size)
        return Record(id=i, name=name, image=image, target=self.target(i))

    def target(self, i: int) -> float:
        """The target of an image, by its attribute."""
        return self.targets[int(self.labels[i])]


class _Folder:
    """The images of CelebAMask-HQ, by name."""

    def __init__(self, where: pathlib.Path):
        self.where = where
        self._names = set(os.listdir(where))

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def read(self, name: str, image_size: int) -> np.ndarray:
        return load_image(self.where / name, image_size, convert=True)


class _Tfds:
    """The images that TFDS prepared, by the names that CelebAMask-HQ gives them."""

    def __init__(self, where: pathlib.Path):
        self.where = where
        try:
            import tensorflow_datasets as tfds
        except ImportError:
            raise UserError(
                f"{where} is read with TensorFlow Datasets: pip install 'diffcf_jax[tfds]'"
            ) from None
        versions = sorted(where.glob("*.*.*"))
        if not versions:
            raise UserError(
                f"{where} has no version folder such as 2.0.0: prepare it with "
                'tfds.data_source("celeb_a_hq/256")'
            )
        try:
            builder = tfds.builder_from_directory(versions[-1])
            self._source = builder.as_data_source(split="train")
            encoded = builder.as_data_source(
                split="train", decoders={"image": tfds.decode.SkipDecoding()}
            )
        except NotImplementedError as error:  # TFRecord can only be read with TensorFlow
            raise UserError(
                f"{versions[-1]} is not in ArrayRecord format: prepare it with "
                'tfds.data_source("celeb_a_hq/256")'
            ) from error
        # TFDS keeps its own random order. The names hold numbers from 0 or from 1, depending on
        # the tool that made the images.
        numbers = [_number(example["image/filename"].decode()) for example in encoded]
        first = min(numbers)
        if sorted(numbers) != list(range(first, first + len(numbers))) or first > 1:
            raise UserError(f"{versions[-1]} does not number its images from 0 or 1 without a gap")
        self._rows = {f"{number - first}.jpg": row for row, number in enumerate(numbers)}

    def __contains__(self, name: str) -> bool:
        return name in self._rows

    def read(self, name: str, image_size: int) -> np.ndarray:
        image = Image.fromarray(self._source[self._rows[name]]["image"])
        return to_square_rgb(image, image_size)


def _open_images(path: pathlib.Path) -> Any:
    if (path / IMAGES).is_dir():
        return _Folder(path / IMAGES)
    if (path / TFDS).is_dir():
        return _Tfds(path / TFDS)
    raise UserError(
        f"{path / IMAGES} is missing (and so is {TFDS} of TensorFlow Datasets): {_MASK_HQ}"
    )


def _find(path: pathlib.Path, name: str) -> pathlib.Path:
    if not path.is_dir():
        raise UserError(
            f"{path} is not a folder: set --config.data.path to the folder CelebAMask-HQ"
        )
    if not (path / name).is_file():
        raise UserError(f"{path / name} is missing: {_SOURCES[name]}")
    return path / name


def _names_of_split(path: pathlib.Path, split: str) -> set[str] | None:
    """Names of a split's images, None for all."""
    if split == "all":
        return None
    if split not in SPLITS:
        raise UserError(f'CelebA-HQ has no split "{split}": use {", ".join(SPLITS)} or all')
    mapping = _read_cells(_find(path, MAPPING), 3)[1:]  # idx, orig_idx, orig_file
    partition = dict(_read_cells(_find(path, PARTITION), 2))
    names = set()
    for number, _, original in mapping:
        if original not in partition:
            raise UserError(f"{path / PARTITION} has no line for {original}: replace the file")
        if partition[original] == SPLITS[split]:
            names.add(f"{number}.jpg")
    return names


def _read_attributes(path: pathlib.Path) -> tuple[list[str], dict[str, np.ndarray]]:
    """Names of the attributes, and by image which it has: two head lines, then name and -1 or 1."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    names = lines[1].split() if len(lines) > 1 else []
    attributes = {}
    for line, text in enumerate(lines[2:], start=3):
        name, *values = text.split() or [""]
        if not name:
            continue
        if len(values) != len(names) or not set(values) <= {"-1", "1"}:
            raise UserError(
                f"{path}, line {line}: not a name and {len(names)} values -1 or 1: replace it"
            )
        attributes[name] = np.array(values) == "1"
    return names, attributes


def _read_cells(path: pathlib.Path, columns: int) -> list[list[str]]:
    """The cells of a table that is separated by blanks."""
    text = path.read_text(encoding="utf-8", errors="replace")
    rows = []
    for line, cells in enumerate(map(str.split, text.splitlines()), start=1):
        if cells and len(cells) != columns:
            raise UserError(f"{path}, line {line}: not {columns} columns: replace the file")
        if cells:
            rows.append(cells)
    return rows


def _number(name: str) -> int:
    digits = re.findall(r"\d+", pathlib.PurePosixPath(name).name)
    return int(digits[-1]) if digits else -1
