"""Tables of numbers that belong to images: comma-separated, one row per image, cells checked."""

import csv
import io
import math
import os
import pathlib
import re
import unicodedata
from collections.abc import Collection, Sequence

import numpy as np

from diffcf_jax.errors import UserError
from diffcf_jax.files import read_bytes, short

MOST_BYTES = 1 << 28  # of a table

# float() also takes 1_0, digits of other scripts, "nan" and "infinity".
_DECIMAL = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
_FLOAT32_MAX = float(np.finfo(np.float32).max)


def read_table(
    path: str | os.PathLike,
    names: Collection[str],
    columns: Sequence[str],
    optional: Sequence[str] = (),
) -> dict[str, tuple[float | None, ...]]:
    """Read the numbers of each image: comma-separated, UTF-8, header `name` and the columns.

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
            f"{path}, line 1: the columns are {_quoted(','.join(header))}: they must be {wanted}, "
            "separated by commas"
        )
    spelled = _by_normal_form(names)
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
            name = spelled.get(unicodedata.normalize("NFC", name), name)
        if name not in names:
            unknown.append((line, name))
            continue
        if name in lines:
            raise UserError(
                f"{path}, line {line}, column name: {_quoted(name)} is already in line "
                f"{lines[name]}: remove one of the two"
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
            f"{path}, line {line}, column name: there is no image {_quoted(name)} in the "
            f"folder{more}: write the name with its folders and suffix, or remove the line"
        )
    return values


def read_columns(
    path: str | os.PathLike,
) -> tuple[list[str], dict[str, tuple[int, dict[str, str]]]]:
    """Read a table with the header `name` and any other columns, whatever its cells say.

    Returns:
        The columns beside `name`, and by name the line and its cells by column, as text.

    Raises:
        UserError: it is no such table.
    """
    rows = _read_rows(pathlib.Path(path))
    header = [cell.strip() for cell in rows[0][1]] if rows else []
    columns = header[1:]
    if header[:1] != ["name"] or not columns or "" in columns or len(set(header)) < len(header):
        raise UserError(
            f"{path} must begin with the line name,attribute,... with a different name for each "
            f"attribute; it begins with {short(','.join(header))}"
        )
    found: dict[str, tuple[int, dict[str, str]]] = {}
    for line, cells in rows[1:]:
        if len(cells) != len(header):
            raise UserError(
                f"{path} line {line} has {len(cells)} cells instead of {len(header)}: fix the line"
            )
        if cells[0] in found:
            raise UserError(f"{path} line {line} has {short(cells[0])} again: leave one row out")
        found[cells[0]] = line, dict(zip(columns, map(str.strip, cells[1:]), strict=True))
    return columns, found


def _read_rows(path: pathlib.Path) -> list[tuple[int, list[str]]]:
    """Line numbers and cells of all lines that are not blank (",," is: spreadsheets write it)."""
    data = read_bytes(path, MOST_BYTES, "check its name and its permissions")
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
            f"{path}, line {reader.line_num}: not a comma-separated table ({error}): fix the line"
        ) from error


def number(cell: str, path: str | os.PathLike, line: int, column: str) -> float:
    """Read a number in decimal notation that float32 can hold.

    Args:
        cell: what is written there, such as "0.25", "-3" or "1e-3".
        path: the table, for the message.
        line: of the cell.
        column: of the cell.

    Raises:
        UserError: it is something else.
    """
    value = float(cell) if _DECIMAL.fullmatch(cell.strip()) else math.nan
    # The networks compute in float32.
    if not abs(value) <= _FLOAT32_MAX:
        raise UserError(
            f"{path}, line {line}, column {column}: {_quoted(cell)} is not a finite number: write "
            "one like 0.25, or remove the line"
        )
    return value


def _by_normal_form(names: Collection[str]) -> dict[str, str]:
    """Map names in Unicode's composed form to names as they are, where that leads to one only.

    File systems and spreadsheets spell the same letters in different ways (é as one character, or
    as e and an accent).
    """
    spelled: dict[str, str | None] = {}
    for name in names:
        form = unicodedata.normalize("NFC", name)
        spelled[form] = None if form in spelled else name
    return {form: name for form, name in spelled.items() if name is not None}


def _quoted(text: str) -> str:
    """Quote a cell for a message, cut where it is long."""
    return f'"{text}"' if len(text) <= 200 else f'"{text[:200]}..."'
