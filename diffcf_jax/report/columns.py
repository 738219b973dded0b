"""Columns of the user's own in the table of cases: OUT/attributes.csv."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from diffcf_jax.errors import UserError
from diffcf_jax.files import read_bytes, read_text, write_file

ATTRIBUTES = "attributes.csv"


def keep_attributes(folder: Path, path: Path) -> None:
    """Copy a table of the user into the results folder, where every later report finds it.

    Raises:
        UserError: it is no table with the header `name,...`, or the folder cannot be written.
    """
    _read(path)
    write_file(folder / ATTRIBUTES, read_bytes(path))


def add_attributes(
    folder: Path, rows: Sequence[Mapping[str, Any]], faults: list[str]
) -> list[dict[str, Any]]:
    """The rows, each with the cells of its image under the names of their columns.

    A cell is a whole number, another number or text; None where the table has no row or nothing
    stands there. A column with a name that results have already is left out with a fault, as is a
    whole table that is broken.
    """
    if not (folder / ATTRIBUTES).exists():
        return [dict(row) for row in rows]
    try:
        columns, cells = _read(folder / ATTRIBUTES)
    except UserError as error:
        faults.append(str(error))
        return [dict(row) for row in rows]
    taken = {key for row in rows for key in row}
    for column in columns:
        if column in taken:
            faults.append(
                f"{ATTRIBUTES}: every result has a {column} of its own: rename the column"
            )
    own = [column for column in columns if column not in taken]
    none = dict.fromkeys(columns)
    return [
        {**row, **{column: cells.get(row["name"], none)[column] for column in own}} for row in rows
    ]


def _read(path: Path) -> tuple[list[str], dict[str, dict[str, Any]]]:
    """The columns beside the name, and the cells of each name."""
    try:
        lines = list(csv.reader(io.StringIO(read_text(path).removeprefix("\ufeff"))))
    except csv.Error as error:
        raise UserError(f"{path} is not a CSV file ({error}): write name,column,...") from None
    header = [cell.strip() for cell in lines[0]] if lines else []
    if header[:1] != ["name"] or "" in header or len(set(header)) < max(2, len(header)):
        raise UserError(
            f"{path} must begin with the line name,column,... with a name for each column"
        )
    rows = {}
    for number, line in enumerate(lines[1:], start=2):
        if line and len(line) != len(header):
            raise UserError(
                f"{path} line {number} has {len(line)} cells instead of {len(header)}: fix the line"
            )
        if line:
            rows[line[0]] = dict(zip(header[1:], map(_value, line[1:]), strict=True))
    return header[1:], rows


def _value(cell: str) -> int | float | str | None:
    cell = cell.strip()
    for kind in (int, float):
        try:
            return kind(cell)
        except ValueError:
            continue
    return cell or None
