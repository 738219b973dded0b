"""A results folder belongs to one config: what its results were made with, and who writes it."""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from diffcf_jax.errors import UserError
from diffcf_jax.files import cannot_write
from diffcf_jax.results.log import (
    IMAGES,
    RESULTS,
    Key,
    image_path,
    key_of,
    log_path,
    read_results,
    write_results,
)
from diffcf_jax.workdir import CONFIG, differences, read_config

# What may differ between two runs into one folder, because it changes no result: which images,
# targets and answers, how many at a time, and who only looks on. Checkpoints are compared by their
# content.
MAY_CHANGE = (
    "batch_size", "oracle", "data.limit", "data.convert", "method.remat", "method.answers",
    "generator", "refiner", "regressor.checkpoint", "regressor.original", "regressor.convert",
    "regressor.model", "regressor.labels",
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
    remedy = "give another --workdir, or --start_over to remove its results"
    before = read_config(workdir, remedy)
    if before is None:
        if log_path(workdir, 0).exists():
            raise UserError(
                f"{workdir} holds results, but no {CONFIG} that says how they were made; give "
                "another --workdir, or --start_over to remove them."
            )
        return
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
    of_process_0 = read_config(workdir)
    if of_process_0 is None:
        raise UserError(
            f"The processes of this run do not share {workdir}: give a --workdir on a file system "
            "that all hosts see."
        )
    if differing := _differences(of_process_0, config):
        raise UserError(
            f"The processes of this run have different configs: {differing}. Give the same command "
            "on every host."
        )


def check_complete(workdir: Path, rows: Sequence[Mapping[str, Any]], keys: Sequence[Key]) -> None:
    """Refuses to call a run done whose processes have left no line for something.

    Args:
        workdir: is named.
        rows: of the logs of all processes.
        keys: of what was to do; without a target there was nothing to do.

    Raises:
        UserError: a result is missing.
    """
    there = {key_of(row) for row in rows}
    unreadable = {key_of(row)[:2] for row in rows if "error" in row}  # has no answer at all
    missing = [
        key for key in keys if key[1] is not None and key not in there and key[:2] not in unreadable
    ]
    if missing:
        raise UserError(
            f"{workdir} lacks {len(missing)} results, such as that of {missing[0][0]}: give a "
            "--workdir on a file system that all hosts see, and run the same command again."
        )


def start_over(workdir: Path) -> None:
    """Removes the results of a folder and the images in it that they name, nothing else.

    Raises:
        UserError: a file cannot be removed.
    """
    rows = read_results(workdir, skip_broken=True) if log_path(workdir, 0).exists() else []
    try:
        for row in rows:  # before the log, which alone knows them
            for key in IMAGES:
                with contextlib.suppress(UserError):  # a path that leads out of the folder
                    if row.get(key) and (path := image_path(workdir, row, key)).is_file():
                        path.unlink()
        write_results(workdir, [])
        summaries = ("summary.json", "summary.csv", "report.html", "metrics.json", "metrics.csv")
        for name in (CONFIG, *summaries):
            (workdir / name).unlink(missing_ok=True)
        (workdir / RESULTS).unlink(missing_ok=True)
    except OSError as error:
        raise cannot_write(workdir, error) from error


def _differences(before: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """The keys that lead to other results, with both values; empty where there are none."""
    only_other_targets = bool(before.get("targets")) == bool(config.get("targets"))
    return differences(before, config, (*MAY_CHANGE, *["targets"] * only_other_targets))
