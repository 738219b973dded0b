"""A results folder belongs to one config: what its results were made with, and who writes it."""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from diffcf_jax.errors import UserError
from diffcf_jax.files import cannot_write, make_folder, strict_json, write_file
from diffcf_jax.results.log import (
    RESULTS,
    key_of,
    log_path,
    read_results,
    result_key,
    write_results,
)

CONFIG = "config.json"

# What may differ between two runs into one folder, because it does not change the result of an
# image: which images and targets, how many at a time, and who only looks on. Checkpoints are
# compared by their content.
MAY_CHANGE = (
    "batch_size", "oracle", "data.limit", "data.convert", "method.remat", "generator",
    "regressor.checkpoint", "regressor.original", "regressor.convert",
)  # fmt: skip


def check_config(workdir: Path, config: Mapping[str, Any]) -> None:
    """Refuses a folder whose results were made with another config.

    Args:
        workdir: may be new.
        config: of this run.

    Raises:
        UserError: it names the keys that differ.
    """
    if log_path(workdir, 0).exists() and not any("error" not in r for r in read_results(workdir)):
        return  # nothing was explained yet, so that another config may take the place
    path = workdir / CONFIG
    try:
        before = json.loads(path.read_text())
    except FileNotFoundError:
        if log_path(workdir, 0).exists():
            raise UserError(
                f"{workdir} holds results, but no {CONFIG} that tells how they were made; give "
                "another --workdir, or --start_over to remove them."
            ) from None
        return
    except (OSError, ValueError) as error:
        raise UserError(
            f"cannot read {path} ({error}): give another --workdir, or --start_over to remove "
            "its results."
        ) from None
    if differing := _differences(before, config):
        raise UserError(
            f"{workdir} holds results of another config: {differing}. Give another --workdir, or "
            "--start_over to remove its results."
        )


def check_shared(workdir: Path, config: Mapping[str, Any]) -> None:
    """Refuses a folder that is not the one in which process 0 has written its config, the same.

    Args:
        workdir: which process 0 has prepared.
        config: of this process.

    Raises:
        UserError: the processes do not share the folder, or the config.
    """
    try:
        of_process_0 = json.loads((workdir / CONFIG).read_text())
    except (OSError, ValueError):
        raise UserError(
            f"The processes of this run do not share {workdir}: give a --workdir on a file system "
            "that all hosts see."
        ) from None
    if differing := _differences(of_process_0, config):
        raise UserError(
            f"The processes of this run have different configs: {differing}. Give the same command "
            "on every host."
        )


def check_complete(
    workdir: Path, rows: Sequence[Mapping[str, Any]], keys: Sequence[tuple[str, float | None]]
) -> None:
    """Refuses to call a run done whose processes have left no line for something.

    Args:
        workdir: is named.
        rows: of the logs of all processes.
        keys: names and targets of what was to do; without a target there was nothing to do.

    Raises:
        UserError: a result is missing.
    """
    there = {key_of(row) for row in rows}
    missing = [key for key in keys if key[1] is not None and result_key(*key) not in there]
    if missing:
        raise UserError(
            f"{workdir} lacks {len(missing)} results, such as that of {missing[0][0]}: give a "
            "--workdir on a file system that all hosts see, and run the same command again."
        )


def write_config(workdir: Path, config: Mapping[str, Any]) -> None:
    """Writes config.json.

    Raises:
        UserError: the folder cannot be written.
    """
    write_file(workdir / CONFIG, (strict_json(config, indent=2) + "\n").encode())


def start_over(workdir: Path) -> None:
    """Removes the results of a folder and the images that they name, nothing else.

    Raises:
        UserError: a file cannot be removed.
    """
    rows = read_results(workdir, skip_broken=True) if log_path(workdir, 0).exists() else []
    paths = ("input", "reconstruction", "cf", "heatmap", "square_mask")
    try:
        for row in rows:  # before the log, which alone knows them
            for key in paths:
                if row.get(key):
                    (workdir / row[key]).unlink(missing_ok=True)
        write_results(workdir, [])
        summaries = ("summary.json", "summary.csv", "report.html", "metrics.json", "metrics.csv")
        for name in (CONFIG, *summaries):
            (workdir / name).unlink(missing_ok=True)
        (workdir / RESULTS).unlink(missing_ok=True)
    except OSError as error:
        raise cannot_write(workdir, error) from error


@contextlib.contextmanager
def locked(workdir: Path) -> Iterator[None]:
    """Keeps a second run out of the folder; the lock ends with the process, however it ends.

    Raises:
        UserError: another run works in the folder, or it cannot be written.
    """
    make_folder(workdir)
    path = workdir / ".lock"
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT)
    except OSError as error:
        raise cannot_write(path, error) from error
    try:
        if os.name == "posix":
            import fcntl

            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(
                    f"Another run works in {workdir}: wait for its end, or give another --workdir."
                ) from None
            except OSError:
                pass  # a file system without locks
        yield
    finally:
        os.close(file)


def _differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """The keys that lead to other results, with both values; empty where there are none."""
    there, here = _flat(there), _flat(json.loads(strict_json(here)))
    if bool(there.get("targets")) == bool(here.get("targets")):
        there.pop("targets", None)  # other numbers are new results, not other ones
        here.pop("targets", None)
    return "; ".join(
        f"{key} ({there.get(key)} there, {here.get(key)} here)"
        for key in sorted(there.keys() | here.keys())
        if there.get(key) != here.get(key)
        and not any(key == free or key.startswith(f"{free}.") for free in MAY_CHANGE)
    )


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
