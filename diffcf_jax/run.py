"""Explains a data set into a folder: what explain.py does."""

import collections
import math
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import tqdm

from diffcf_jax.counterfactual.build import build_method
from diffcf_jax.counterfactual.engine import Finished, Job, explain_all
from diffcf_jax.data.folder import ImageFolder
from diffcf_jax.data.record import Record
from diffcf_jax.data.squares import Squares
from diffcf_jax.errors import UserError
from diffcf_jax.inputs import load_networks, open_data, parse_targets
from diffcf_jax.report.html import write_report
from diffcf_jax.report.results import ResultWriter, read_results, result_key
from diffcf_jax.report.summary import environment, summarise, write_summary
from diffcf_jax.units import Unit, unit_of


def run(
    workdir: Path,
    method: Mapping[str, Any],
    generator: Mapping[str, Any],
    regressor: Mapping[str, Any],
    data: Mapping[str, Any],
    targets: str,
    batch_size: int,
    seed: int,
    oracle: Mapping[str, Any] | None = None,
) -> tuple[Path, list[str]]:
    """Explains every image of a data set for every target.

    What a workdir already holds is not computed again. An image that cannot be read gets a line
    with its error, and the others go on.

    Args:
        workdir: gets results.jsonl, images, summary.json, summary.csv and report.html.
        method: `name` and the options of `build_method`.
        generator: `checkpoint`, a network directory.
        regressor: `checkpoint`, a network directory.
        data: `name`, `path`, `limit`, `convert`.
        targets: numbers separated by commas, in the label's unit; "" takes the data set's own.
        batch_size: images that are worked on at a time.
        seed: of all randomness.
        oracle: `checkpoint` of a second regressor; only recorded, for `eval.metrics`.

    Returns:
        The path of report.html, and what was wrong with each image that could not be explained.

    Raises:
        UserError: whatever is wrong with the config, a checkpoint or the workdir.
    """
    start = time.monotonic()
    config = {
        "method": dict(method), "generator": dict(generator), "regressor": dict(regressor),
        "oracle": dict(oracle or {}), "data": dict(data), "targets": targets,
        "batch_size": batch_size, "seed": seed,
    }  # fmt: skip
    if batch_size < 1:
        raise UserError(f"config.batch_size={batch_size} must be at least 1.")
    wanted = parse_targets(targets)
    generator_net, regressor_net = load_networks(generator, regressor)
    unit = unit_of(regressor_net.description, regressor)
    records = open_data(data, generator_net.description["image_size"])
    options = {key: value for key, value in method.items() if key != "name"}
    threshold = options["threshold"]
    options["threshold"] = threshold / unit.scale
    built = build_method(method["name"], generator_net, regressor_net.module.apply, options)
    params = {"generator": generator_net.variables, "regressor": regressor_net.variables}

    with (
        ResultWriter(workdir, records.names, several_targets=len(wanted) > 1) as writer,
        _Progress(len(records.names) * max(1, len(wanted))) as progress,
        ThreadPoolExecutor(4) as threads,
    ):
        jobs = _jobs(records, wanted, unit, writer, progress)
        saves: collections.deque[Future] = collections.deque()
        for finished in explain_all(built, params, jobs, batch_size, seed, progress.on_step):
            saves.append(threads.submit(_save, writer, finished, unit, threshold))
            progress.finished(bool(finished.counterfactual.success))
            while saves and saves[0].done():
                saves.popleft().result()  # a full disk stops the run
        for save in saves:
            save.result()
    rows = read_results(workdir)
    summary = summarise(rows, config, time.monotonic() - start, environment())
    write_summary(workdir, summary)
    return write_report(workdir), [row["error"] for row in rows if "error" in row]


def _jobs(
    records: Squares | ImageFolder,
    targets: list[float],
    unit: Unit,
    writer: ResultWriter,
    progress: "_Progress",
) -> Iterator[Job]:
    """What is left to do; images that cannot be read are written off on the way."""
    finished = writer.finished()
    done_ids = {id for id, _ in finished}
    for i, name in enumerate(records.names):
        if not targets and i in done_ids:  # the data set's own target is the only one
            progress.skipped()
            continue
        left = [target for target in targets if result_key(i, target) not in finished]
        for _ in range(len(targets) - len(left)):
            progress.skipped()
        if targets and not left:
            continue
        try:
            record = records[i]
            if not targets:
                left = [_own_target(record)]
        except UserError as error:
            for target in left or [None]:
                writer.save_error(i, name, target, str(error))
                progress.failed()
            continue
        image = record.image.astype(np.float32) / 255
        for target in left:
            yield Job(record.id, image, unit.normalise(target), (record, target))


def _own_target(record: Record) -> float:
    if record.target is None:
        raise UserError(
            f"{record.name} has no target; give it one in data.csv (name,target) "
            "or pass --config.targets=NUMBER."
        )
    return record.target


def _save(writer: ResultWriter, finished: Finished, unit: Unit, threshold: float) -> None:
    found = unit.denormalise_result(finished.counterfactual)
    record, target = finished.job.tag
    values = [found.image, found.y_final, found.y_initial]
    if not all(np.isfinite(value).all() for value in values):
        message = f"{record.name} leads to a value that is not finite."
        writer.save_error(record.id, record.name, target, message)
        return
    reason = None
    if not found.success:
        reason = (
            f"the saved image misses the target by more than {threshold:g} "
            f"{unit.name + ' ' if unit.name else ''}after {int(found.iterations)} iterations"
        )
    writer.save(record, target, found, finished.seconds, reason)


class _Progress:
    """The progress bar: images done, mean |y^ - y~| of those in work, success so far, time left."""

    def __init__(self, total: int):
        self._bar = tqdm.tqdm(total=total, unit="image", dynamic_ncols=True, smoothing=0.05)
        self._successes = self._results = self.failures = 0
        self._miss = math.nan

    def __enter__(self) -> "_Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def on_step(self, misses: np.ndarray) -> None:
        self._miss = float(misses.mean())
        self._show()

    def finished(self, success: bool) -> None:
        self._results += 1
        self._successes += success
        self._show()
        self._bar.update()

    def failed(self) -> None:
        self.failures += 1
        self._bar.update()

    def skipped(self) -> None:
        self._bar.update()
        self._bar.initial += 1  # not counted into the time left

    def _show(self) -> None:
        success = f"{self._successes}/{self._results}"
        self._bar.set_postfix_str(f"|y-target| {self._miss:.3f}, success {success}")
