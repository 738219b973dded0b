"""results.jsonl: one line for each input that was explained, or that could not be.

Process 0 of a run appends to results.jsonl, process 3 of a run of several to results.3.jsonl.
Readers see them as one; `write_results` makes them one. A line is written in one piece, so a
crash can tear only the last line of a log, and a torn line is left out.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffcf_jax.errors import UserError
from diffcf_jax.files import strict_json, write_file
from diffcf_jax.shipped import command

RESULTS = "results.jsonl"

_NUMBER = (int, float, type(None))
_ERROR_KEYS = {"id": int, "name": str, "target": _NUMBER, "error": str}
_RESULT_KEYS = {
    **{"id": int, "name": str, "target": (int, float), "y_true": _NUMBER},
    **{"y_initial": _NUMBER, "y_reconstruction": _NUMBER, "y_final": _NUMBER},
    **{"success": bool, "iterations": int, "reason": (str, type(None))},
    **{"pixel_change": _NUMBER, "seconds": _NUMBER, "curve": list},
    **{"input": str, "reconstruction": str, "cf": str, "heatmap": str},
    "square_mask": (str, type(None)),
}


def log_path(workdir: str | Path, process: int) -> Path:
    """The log that a process appends to."""
    return Path(workdir) / (RESULTS if process == 0 else f"results.{process}.jsonl")


def read_results(workdir: str | Path, skip_broken: bool = False) -> list[dict[str, Any]]:
    """Reads the results of all processes, checked line by line.

    A result that is there twice counts once, and an error counts as long as there is no result.

    Args:
        workdir: the folder.
        skip_broken: leave broken lines out instead of raising.

    Raises:
        UserError: there is no results.jsonl, or a line is broken.
    """
    paths = [log_path(workdir, 0), *_other_logs(workdir)]
    rows = [row for path in paths for row in _read_log(path, skip_broken)]
    results = {key_of(row): row for row in rows if "error" not in row}
    explained = set(results) | {(name, None) for name, _ in results}
    errors = {key_of(row): row for row in rows if "error" in row}
    chosen = {id(row) for row in results.values()}
    chosen |= {id(row) for key, row in errors.items() if key not in explained}
    return [row for row in rows if id(row) in chosen]


def write_results(workdir: str | Path, rows: Sequence[dict[str, Any]]) -> None:
    """Replaces the logs of all processes by one results.jsonl with these rows.

    A crash at any moment leaves either the old logs, or the new one beside remains of old ones
    that say nothing else.

    Raises:
        UserError: the folder cannot be written.
    """
    text = "".join(strict_json(row) + "\n" for row in rows)
    write_file(log_path(workdir, 0), text.encode())
    for path in _other_logs(workdir):
        path.unlink()


def result_key(name: str, target: float) -> tuple[str, float]:
    """What identifies a result: the input's name, and the target as float32 knows it.

    The target is the shortest decimal that float32 rounds to the same value, so that 0.2 is
    0.2 whether it comes from a config or back from a float32 array.
    """
    return name, float(str(np.float32(target)))


def key_of(row: dict[str, Any]) -> tuple[str, float | None]:
    """The key of a row; the target of an error may be None."""
    target = row["target"]
    return (row["name"], None) if target is None else result_key(row["name"], target)


def _other_logs(workdir: str | Path) -> list[Path]:
    return sorted(Path(workdir).glob("results.*.jsonl"))


def _read_log(path: Path, skip_broken: bool) -> list[dict[str, Any]]:
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise UserError(
            f"cannot read {path}: {error.strerror}; give the --workdir of a finished "
            f"{command('explain')} run"
        ) from error
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            if line.strip():
                rows.append(_parse_line(line))
        except ValueError as error:
            if skip_broken or number == len(lines):  # no line end: a crash tore it
                continue
            raise UserError(
                f"{path} line {number} is broken ({error}): delete that line, and its image "
                "will be explained again"
            ) from error
    return rows


def _parse_line(line: bytes) -> dict[str, Any]:
    """Raises ValueError, as json and unicode errors are, saying what is wrong."""
    row = json.loads(line)
    if not isinstance(row, dict):
        raise ValueError("it is not a JSON object")
    for key, types in (_ERROR_KEYS if "error" in row else _RESULT_KEYS).items():
        if key not in row:
            raise ValueError(f'"{key}" is missing')
        value = row[key]
        if not isinstance(value, types) or (isinstance(value, bool) and types is not bool):
            raise ValueError(f'"{key}" has the value {value!r}')
    return row
