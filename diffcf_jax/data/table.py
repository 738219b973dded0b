"""Tables of numbers that belong to images: comma-separated, one row an image, cells checked."""

import csv
import io
import math
import os
import pathlib
from collections.abc import Collection, Sequence

import numpy as np

from diffcf_jax.errors import UserError

_FLOAT32_MAX = float(np.finfo(np.float32).max)


def read_table(
    path: str | os.PathLike,
    names: Collection[str],
    columns: Sequence[str],
    optional: Sequence[str] = (),
) -> dict[str, tuple[float | None, ...]]:
    """Reads the numbers of each image: comma-separated, UTF-8, header `name` and the columns.

    Columns may come in any order; those that are optional may be missing or have empty cells.

    Args:
        path: the table.
        names: the images that there are; the table may name no other.
        columns: the columns beside `name`.
        optional: further columns.

    Returns:
        By name, the values of `columns`, then those of `optional` (None where there is none).

    Raises:
        UserError: whatever is wrong with the table, with its line and column.
    """
    headers = [["name", *columns]]
    if optional:
        headers.append([*headers[0], *optional])
    wanted = " or ".join(",".join(header) for header in headers)
    rows = _read_rows(pathlib.Path(path))
    if not rows:
        raise UserError(f"{path} is empty: its first line must be {wanted}")
    (_, header), *rows = rows
    header = [cell.strip() for cell in header]
    if sorted(header) not in [sorted(header) for header in headers]:
        raise UserError(
            f'{path}, line 1: the columns are "{",".join(header)}": they must be {wanted}, '
            "separated by commas"
        )
    values, lines, unknown = {}, {}, []
    for line, cells in rows:
        if len(cells) != len(header):
            raise UserError(
                f"{path}, line {line}: {len(cells)} columns instead of {len(header)} "
                f"({','.join(header)}): put names that hold a comma in double quotes"
            )
        row = dict(zip(header, cells, strict=True))
        name = row["name"]
        if name not in names:
            unknown.append((line, name))
            continue
        if name in lines:
            raise UserError(
                f'{path}, line {line}, column name: "{name}" is already in line {lines[name]}: '
                "remove one of the two"
            )
        lines[name] = line
        optional_cells = {column: row.get(column, "").strip() for column in optional}
        values[name] = (
            *(number(row[column], path, line, column) for column in columns),
            *(number(c, path, line, k) if c else None for k, c in optional_cells.items()),
        )
    if unknown:
        (line, name), *others = unknown
        more = f" (nor for {len(others)} more lines)" if others else ""
        raise UserError(
            f'{path}, line {line}, column name: there is no image "{name}" in the folder{more}: '
            "write the name with its folders and suffix, or remove the line"
        )
    return values


def _read_rows(path: pathlib.Path) -> list[tuple[int, list[str]]]:
    """Line numbers and cells of all lines that are not blank (",," is: spreadsheets write it)."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}): check its name and its permissions"
        ) from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}, line {line}: not UTF-8 text: save the table as UTF-8") from error
    reader = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True, strict=True)
    try:
        return [(reader.line_num, cells) for cells in reader if any(map(str.strip, cells))]
    except csv.Error as error:
        raise UserError(
            f"{path}, line {reader.line_num}: not a comma-separated table ({error}): mend the line"
        ) from error


def number(cell: str, path: str | os.PathLike, line: int, column: str) -> float:
    """The finite number in a cell; raises a UserError that says where the cell is."""
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    # The networks compute in float32.
    if not abs(value) <= _FLOAT32_MAX:
        raise UserError(
            f'{path}, line {line}, column {column}: "{cell}" is not a finite number: write one '
            "like 0.25, or remove the line"
        )
    return value
