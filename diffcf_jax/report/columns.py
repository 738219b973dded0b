"""Columns of the user's own in the table of cases: OUT/attributes.csv."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from diffcf_jax.data.table import read_columns
from diffcf_jax.errors import UserError
from diffcf_jax.files import read_bytes, write_file

ATTRIBUTES = "attributes.csv"


def keep_attributes(folder: Path, path: Path) -> None:
    """Copy a table of the user into the results folder, where every later report finds it.

    Raises:
        UserError: it is no table with the header `name,...`, or the folder cannot be written.
    """
    read_columns(path)
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
        columns, found = read_columns(folder / ATTRIBUTES)
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
    nothing = 0, dict.fromkeys(columns, "")
    return [
        {**row, **{column: _value(found.get(row["name"], nothing)[1][column]) for column in own}}
        for row in rows
    ]


def _value(cell: str) -> int | float | str | None:
    for kind in (int, float):
        try:
            return kind(cell)
        except ValueError:
            continue
    return cell or None
