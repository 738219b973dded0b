"""What a user knows of the images: a CSV file with a column of numbers per attribute."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from diffcf_jax.data.table import read_columns
from diffcf_jax.errors import UserError
from diffcf_jax.files import short


@dataclasses.dataclass(frozen=True)
class Attribute:
    """One column.

    Attributes:
        name: its heading.
        values: one per image, float64 [N]; not all are equal.
    """

    name: str
    values: np.ndarray

    @property
    def binary(self) -> bool:
        """Whether all values are 0 or 1."""
        return bool(np.isin(self.values, (0, 1)).all())

    @property
    def upper(self) -> np.ndarray:
        """Which images have it, bool [N]: 1 of 0 and 1, or above the median; never all or none."""
        middle = np.median(self.values)
        if self.binary or middle == self.values.max():
            return self.values == self.values.max()
        return self.values > middle


def read_attributes(path: Path, names: Sequence[str]) -> list[Attribute]:
    """Read a table with the header `name,attribute,...` and a row of numbers per image.

    Rows of other images are left out.

    Args:
        path: the CSV file.
        names: of the images, in the order of the values.

    Raises:
        UserError: the file is no such table, lacks one of the images, or has an attribute with one
            value for all of them.
    """
    columns, found = read_columns(path)
    rows = {
        name: [_number(cell, f"{path} line {line}", column) for column, cell in cells.items()]
        for name, (line, cells) in found.items()
    }
    if missing := [name for name in names if name not in rows]:
        raise UserError(
            f"{path} has no row for {len(missing)} of {len(names)} images, such as "
            f"{short(missing[0])}: write the names of the results into its first column"
        )
    values = np.array([rows[name] for name in names], np.float64)
    for column, found in zip(columns, values.T, strict=True):
        if np.ptp(found) == 0:
            raise UserError(
                f"{path}: {short(column)} is {found[0]:g} for all {len(names)} images, which says "
                "nothing: leave the column out, or audit more images"
            )
    return [Attribute(column, found) for column, found in zip(columns, values.T, strict=True)]


def _number(cell: str, where: str, column: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(
            f"{where}: {short(column)} is {short(cell)}, which is not a finite number: write 0, 1 "
            "or another number, or leave the column out"
        )
    return value
