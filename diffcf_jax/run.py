"""Explains a data set into a folder: what explain.py does."""

import collections
import contextlib
import dataclasses
import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np

from diffcf_jax import chips, parallel
from diffcf_jax.counterfactual.events import Compiled, Event, Finished, Job, Statistics, Stepped
from diffcf_jax.data.folder import ImageFolder, refuse_inside
from diffcf_jax.data.masks import Masks
from diffcf_jax.data.open import open_data
from diffcf_jax.data.record import Record
from diffcf_jax.errors import UserError
from diffcf_jax.explainer import Explainer
from diffcf_jax.explanation import is_finite, not_finite, stop_reason
from diffcf_jax.files import to_uint8
from diffcf_jax.inputs import (
    load_networks,
    load_refiner,
    naming_option,
    parse_batch_size,
    parse_method,
    parse_targets,
    regressor_unit,
)
from diffcf_jax.jsonfile import strict_json
from diffcf_jax.preemption import termination
from diffcf_jax.progress import Progress
from diffcf_jax.regressors.readings import (
    Oracles,
    Predict,
    open_oracles,
    other_outputs,
    read_both,
)
from diffcf_jax.report.html import write_report
from diffcf_jax.results.log import Key, read_results, result_key, write_results
from diffcf_jax.results.summary import (
    engine_figures,
    environment,
    read_engine_figures,
    summarise,
    write_summary,
)
from diffcf_jax.results.workdir import (
    check_complete,
    check_config,
    check_shared,
    start_over,
)
from diffcf_jax.results.writer import ResultWriter
from diffcf_jax.target import Target, as_text
from diffcf_jax.units import label_range
from diffcf_jax.workdir import locked, write_config


def run(
    workdir: Path,
    method: Mapping[str, Any],
    generator: Mapping[str, Any],
    regressor: Mapping[str, Any],
    data: Mapping[str, Any],
    targets: str,
    batch_size: int | str,
    seed: int,
    oracle: Mapping[str, Any] | None = None,
    refiner: Mapping[str, Any] | None = None,
    oracles: Oracles = "",
    from_scratch: bool = False,
) -> tuple[Path, list[str]]:
    """Explains every image of a data set for every target.

    What a workdir already holds is not computed again. An image that cannot be read or whose
    prediction is not finite gets a line with its error, and the others go on. Each process of a
    run of several explains its share; process 0 puts the results together when all are done.

    Args:
        workdir: gets results.jsonl, images, summary.json, summary.csv and report.html.
        method: `name`, "ac-re", "diffae-re" or "hybrid", and its options, see `ACRE`, `DiffAERE`
            and `Hybrid`.
        generator: `checkpoint`, a network directory.
        regressor: `checkpoint`, a network directory; or `model`, see `load_networks`.
        data: `name`, `path`, `limit`, `convert`; and where images may change, see `Masks`.
        targets: numbers, ranges such as 40..50, min or max, separated by commas, in the label's
            unit; "" takes the data set's own.
        batch_size: images that a process works on at a time, or "auto", see `Explainer`.
        seed: of all randomness.
        oracle: `checkpoint` of a second regressor; only recorded, for `eval.metrics`.
        refiner: `checkpoint` of a second generator, for a method that takes two.
        oracles: others, see `oracle_sections`; they read every input and counterfactual.
        from_scratch: remove the results that the workdir holds first.

    Returns:
        The path of report.html, and what was wrong with each image that could not be explained;
        other processes than 0 know of no such image.

    Raises:
        UserError: whatever is wrong with the config, a checkpoint or the workdir.
        Preempted: the run was told to stop; what is finished is on disk.
    """
    start = time.monotonic()
    config = {
        "method": dict(method), "generator": dict(generator), "regressor": _given(regressor),
        "oracle": dict(oracle or {}), **({"oracles": oracles} if oracles else {}),
        "data": dict(data), "targets": targets, "batch_size": batch_size, "seed": seed,
    }  # fmt: skip
    if refiner:
        config["refiner"] = dict(refiner)
    statistics = Statistics()
    with _stops() as check:
        config["batch_size"] = parse_batch_size(batch_size)
        wanted = parse_targets(targets)
        explainer = open_explainer(
            method, generator, regressor, config["batch_size"], seed, oracle, refiner
        )
        readings = {
            **other_outputs(explainer.regressor),
            **open_oracles(oracles, explainer.image_size),
        }
        unit = explainer.unit
        config["regressor"]["unit"] = unit.name  # of all values in the results
        if labels := label_range(getattr(explainer.regressor, "description", {}), regressor):
            config["regressor"]["labels"] = str(labels)
        records = open_data(data, explainer.image_size)
        if isinstance(records, ImageFolder):
            refuse_inside(records.path, workdir)
        masks = Masks(data, records, explainer.image_size, seed)
        made_with = {**config, "networks": explainer.fingerprints()}
        with (
            _folder(workdir, made_with, from_scratch),
            _writer(workdir, made_with, records.names, len(wanted) > 1, check) as writer,
        ):
            answers = explainer.answers
            todo = _todo(records, wanted, answers, writer.finished())
            keys = [
                result_key(records.names[i], target, answer)
                for i, target in todo
                for answer in range(1, answers + 1)
            ]
            _check_same_work(keys, check)
            share = todo[parallel.process_index() :: parallel.process_count()]
            done = len(records.names) * max(1, len(wanted)) - len(todo)
            bounds = answers * done, answers * (done + len(share))
            with Progress(*bounds, silent=parallel.process_index() > 0) as progress:
                if wanted:
                    progress.tell(f"Targets: {as_text(wanted)} {unit.name or ''}".rstrip())

                def go_on() -> None:
                    check()
                    writer.check()

                jobs = _jobs(records, masks, share, writer, progress, go_on)
                save = _saver(writer, explainer, readings)
                for event in _save_all(explainer.stream(jobs, len(share), go_on), save):
                    statistics = statistics.add(event)
                    _show(progress, event)
            peak = chips.peak_flops(jax.local_devices()[0])
            figures = {
                **dataclasses.asdict(statistics),
                "peak_flops": peak and peak * jax.local_device_count(),
            }
            parts = parallel.gather("all is done", figures, check)
            report = workdir / "report.html"
            if parallel.process_index() > 0:
                return report, []
            rows = read_results(workdir)
            check_complete(workdir, rows, keys)
            write_results(workdir, rows)
            summary = summarise(rows, config, time.monotonic() - start, environment())
            summary["engine"] = engine_figures(parts) or read_engine_figures(workdir)
            write_summary(workdir, summary)
            return write_report(workdir), [row["error"] for row in rows if "error" in row]


def _given(section: Mapping[str, Any]) -> dict[str, Any]:
    """A section of the config without what is left open."""
    return {key: value for key, value in section.items() if value not in ("", None)}


def open_explainer(
    method: Mapping[str, Any],
    generator: Mapping[str, Any],
    regressor: Mapping[str, Any],
    batch_size: int | str,
    seed: int,
    oracle: Mapping[str, Any] | None = None,
    refiner: Mapping[str, Any] | None = None,
) -> Explainer:
    """Returns the explainer of a config; the arguments are those of `run`.

    Raises:
        UserError: whatever is wrong with the method or a checkpoint.
    """
    generator_net, regressor_net = load_networks(generator, regressor, oracle)
    refiner_net = load_refiner(refiner)
    options = parse_method(method)
    with naming_option():
        return Explainer(
            generator_net,
            regressor_net,
            options,
            refiner=refiner_net,
            unit=regressor_unit(regressor_net, regressor),
            batch_size=batch_size,
            seed=seed,
        )


@contextlib.contextmanager
def _stops() -> Iterator[Callable[[], None]]:
    """Gives a function that raises when this run is to end: by a signal, or by another process."""
    with parallel.ending_together() as check_others, termination() as check_signals:

        def check() -> None:
            check_signals()
            check_others()

        yield check


@contextlib.contextmanager
def _folder(workdir: Path, made_with: Mapping[str, Any], from_scratch: bool) -> Iterator[None]:
    """Process 0 prepares the folder and keeps it for this run; the others look at it after that."""
    if parallel.process_index() > 0:
        yield
        return
    with locked(workdir):
        if from_scratch:
            start_over(workdir)
        check_config(workdir, made_with)
        write_config(workdir, made_with)
        yield


@contextlib.contextmanager
def _writer(
    workdir: Path,
    made_with: Mapping[str, Any],
    names: Sequence[str],
    several_targets: bool,
    check: Callable[[], None],
) -> Iterator[ResultWriter]:
    """This process's writer; that of process 0 tidies the folder up before the others come."""
    if parallel.process_index() > 0:
        parallel.wait_for_all("the folder is ready", check)
        check_shared(workdir, made_with)
    with ResultWriter(workdir, names, several_targets, parallel.process_index()) as writer:
        if parallel.process_index() == 0:
            parallel.wait_for_all("the folder is ready", check)
        yield writer


def _todo(
    records: Any, targets: list[Target], answers: int, finished: set[Key]
) -> list[tuple[int, Target | None]]:
    """Positions and targets of what is not finished; None: the image has no target of its own.

    Where one of several answers is missing all are searched again: each needs those before it.
    """
    return [
        (i, target)
        for i, name in enumerate(records.names)
        for target in targets or [records.target(i)]
        if target is None
        or not all(result_key(name, target, k + 1) in finished for k in range(answers))
    ]


def _check_same_work(keys: Sequence[Key], check: Callable[[], None]) -> None:
    """All processes must have the same list, of which each takes its share; waits for them."""
    digest = hashlib.blake2b(strict_json(keys).encode()).hexdigest()
    if len(set(parallel.gather("the results are read", digest, check))) > 1:
        raise UserError(
            "The processes of this run see different images, targets or results: give the same "
            "command on every host, with the images and the workdir on file systems that all see."
        )


def _jobs(
    records: Any,
    masks: Masks,
    todo: Sequence[tuple[int, Target | None]],
    writer: ResultWriter,
    progress: Progress,
    check: Callable[[], None],
) -> Iterator[Job]:
    """Reads what is to do; images that cannot be read are written off on the way."""
    record: Record | None = None
    mask: np.ndarray | None = None
    for i, target in todo:
        check()
        try:
            if target is None:
                raise UserError(
                    f"{records.names[i]} has no target; give it one in data.csv (name,target) "
                    "or pass --config.targets=NUMBER."
                )
            if record is None or record.id != i:
                record = records[i]
                mask = masks.of(record.name, record.image)
        except UserError as error:
            writer.save_error(i, records.names[i], target, str(error))
            progress.failed()
            record = None
            continue
        image = record.image.astype(np.float32) / 255
        yield Job(record.id, image, target, record, mask)


def _save_all(events: Iterator[Event], save: Callable[[Finished], None]) -> Iterator[Event]:
    """Passes events on; threads save each result while the next ones are computed."""
    saves: collections.deque[Future] = collections.deque()
    with ThreadPoolExecutor(4) as threads:
        for event in events:
            if isinstance(event, Finished):
                saves.append(threads.submit(save, event))
            yield event
            while saves and saves[0].done():
                saves.popleft().result()  # a full disk stops the run
        for pending in saves:
            pending.result()


def _saver(
    writer: ResultWriter, explainer: Explainer, readings: Mapping[str, Predict]
) -> Callable[[Finished], None]:
    unit, threshold = explainer.unit, explainer.method.threshold

    def save(finished: Finished) -> None:
        job, found = finished.job, finished.counterfactual
        record: Record = job.tag
        if not is_finite(found):
            message = not_finite(record.name)
            writer.save_error(record.id, record.name, job.target, message, finished.answer)
            return
        reason = stop_reason(found, job.target, threshold, unit, finished.answer)
        saved = to_uint8(found.image, f"the counterfactual of {record.name}")
        others = read_both(readings, record.image, saved) if readings else {}
        writer.save(
            record, job.target, found, finished.seconds, reason, unit.name, others,
            finished.answer, job.allowed,
        )  # fmt: skip

    return save


def _show(progress: Progress, event: Event) -> None:
    match event:
        case Compiled(programs, retry):
            if retry:
                progress.tell("Out of memory: the run goes on with fewer slots.")
            progress.tell(programs.describe())
        case Stepped(misses):
            progress.on_step(misses)
        case Finished():
            progress.finished(bool(event.counterfactual.success))
