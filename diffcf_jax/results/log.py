"""results.jsonl: one line for each input that was explained, or that could not be.

Process 0 of a run appends to results.jsonl, process 3 of a run of several to results.3.jsonl.
Readers see them as one; `write_results` makes them one. A line is written in one piece, so a
crash can tear only the last line of a log, and a torn line is left out.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffcf_jax.errors import UserError
from diffcf_jax.files import inside, read_bytes, read_npy, short, write_file
from diffcf_jax.jsonfile import parse_json, strict_json
from diffcf_jax.shipped import command
from diffcf_jax.target import Target, ends, plain

RESULTS = "results.jsonl"
IMAGES = ("input", "reconstruction", "cf", "heatmap", "square_mask", "mask")  # name a file

Key = tuple[str, float | str | None, int]  # see `result_key`

# What float32 holds, as all predictions are, and what a float counts without gaps.
_LARGEST = 3.4028234663852886e38
_LARGEST_COUNT = 1 << 53


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return type(value) is int and abs(value) <= _LARGEST_COUNT


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= _LARGEST


def _is_target(value: Any) -> bool:
    if not isinstance(value, str):
        return _is_number(value)
    try:
        return value == plain(value)
    except ValueError:
        return False


def _is_curve(value: Any) -> bool:
    return isinstance(value, list) and all(y is None or _is_number(y) for y in value)


def _are_readings(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(pair, dict)
        and pair.keys() == {"before", "after"}
        and all(y is None or _is_number(y) for y in pair.values())
        for pair in value.values()
    )


_ERROR_KEYS = {
    **{"id": _is_count, "name": _is_text, "target": _is_target, "answer": _is_count},
    "error": _is_text,
}
_RESULT_KEYS = {
    **{"id": _is_count, "name": _is_text, "target": _is_target, "answer": _is_count},
    "y_true": _is_number,
    **{"y_initial": _is_number, "y_reconstruction": _is_number, "y_final": _is_number},
    **{"success": _is_flag, "iterations": _is_count, "reason": _is_text},
    **{"pixel_change": _is_number, "seconds": _is_number, "curve": _is_curve},
    **dict.fromkeys(IMAGES, _is_text),
}
# What only some methods or runs have
_OPTIONAL_KEYS = {"readings": _are_readings, "codes": _is_text, "latent_change": _is_number}
_MAY_BE_NULL = {
    *("y_true", "y_initial", "y_reconstruction", "y_final", "reason", "pixel_change", "seconds"),
    *("square_mask", "mask"),
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
    explained = set(results) | {(name, None, 1) for name, *_ in results}
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


def result_key(name: str, target: Target | None, answer: int = 1) -> Key:
    """What identifies a result: the input's name, the target as JSON has it (`plain`), the answer.

    A number is the shortest decimal that float32 rounds to the same value, so that 0.2 is
    0.2 whether it comes from a config or back from a float32 array.
    """
    return name, None if target is None else plain(target), answer


def order_of(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """What rows are sorted by: input; numbers and ranges by their ends, then extremes; answer."""
    target = row["target"]
    bounds = (0.0, 0.0) if target is None else ends(target)
    return row["id"], bounds is None, bounds or (0.0, 0.0), str(target), row["answer"]


def key_of(row: Mapping[str, Any]) -> Key:
    """The key of a row; the target of an error may be None."""
    return result_key(row["name"], row["target"], row["answer"])


def image_path(workdir: Path, row: Mapping[str, Any], key: str) -> Path:
    """The file of an image that a row names.

    Args:
        workdir: the folder of the results.
        row: of `read_results`, without an error.
        key: one of `IMAGES`.

    Raises:
        UserError: the path leads out of the folder.
    """
    return inside(workdir, row[key])


def read_codes(workdir: Path, row: Mapping[str, Any]) -> np.ndarray:
    """The semantic codes of a row's input and counterfactual, float32 [2, D].

    Args:
        workdir: the folder of the results.
        row: of `read_results`, with `codes`.

    Raises:
        UserError: the file is missing or broken, or its path leads out of the folder.
    """
    path = inside(workdir, row["codes"])
    codes = read_npy(path)
    if codes.dtype != np.float32 or codes.ndim != 2 or len(codes) != 2:
        raise UserError(
            f"{path} holds no two codes: run {command('explain')} again with the same --workdir"
        )
    return codes


def _other_logs(workdir: str | Path) -> list[Path]:
    return sorted(Path(workdir).glob("results.*.jsonl"))


def _read_log(path: Path, skip_broken: bool) -> list[dict[str, Any]]:
    remedy = f"give the --workdir of a finished {command('explain')} run"
    lines = read_bytes(path, None, remedy).split(b"\n")
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
            ) from None
    return rows


def _parse_line(line: bytes) -> dict[str, Any]:
    """Raises ValueError, as unicode errors are, saying what is wrong."""
    row = parse_json(line.decode())
    is_error = "error" in row
    row.setdefault("answer", 1)  # what was written before there could be several
    if not is_error:
        row.setdefault("mask", None)  # and before masks were kept
    for key, is_valid in _OPTIONAL_KEYS.items():
        if not is_error and key in row and not is_valid(row[key]):
            raise ValueError(f'"{key}" has the value {short(row[key])}')
    for key, is_valid in (_ERROR_KEYS if is_error else _RESULT_KEYS).items():
        if key not in row:
            raise ValueError(f'"{key}" is missing')
        null = row[key] is None and (key in _MAY_BE_NULL or (is_error and key == "target"))
        if not null and not is_valid(row[key]):
            raise ValueError(f'"{key}" has the value {short(row[key])}')
    return row
