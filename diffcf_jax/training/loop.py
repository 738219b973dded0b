"""Trains one network: data, update, evaluation, checkpoints, pictures."""

import collections
import contextlib
import dataclasses
import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import optax
from jax.sharding import Mesh

from diffcf_jax import chips, parallel
from diffcf_jax.data.folder import refuse_inside
from diffcf_jax.data.loader import Batches, batches
from diffcf_jax.errors import Preempted, UserError
from diffcf_jax.flops import traced_flops
from diffcf_jax.training.config import TrainConfig
from diffcf_jax.training.evaluation import Evaluation
from diffcf_jax.training.initial import initial_variables
from diffcf_jax.training.preemption import stop_requests
from diffcf_jax.training.progress import Clock, Reporter, Summary
from diffcf_jax.training.state import TrainState, create_state, make_optimizer, make_update
from diffcf_jax.training.task import Task, make_task
from diffcf_jax.training.workdir import Workdir
from diffcf_jax.workdir import locked

AHEAD = 2  # updates that the host may be ahead of the devices
PATIENCE = 10.0  # seconds that a process has to meet another's error itself, see `ending_together`


@parallel.ending_together(PATIENCE)
def train(workdir: Path, config: TrainConfig) -> Summary:
    """Trains a network and writes it to `workdir/network`.

    A run that was interrupted continues from its newest checkpoint with the same stream of data
    and noise, and ends with the same network to the last bit. `workdir/network` holds the
    exponential moving average and is renewed with every checkpoint, `workdir/best` that of the
    best evaluation.

    Args:
        workdir: gets `config.json`, `parameters.txt` (names, shapes and sizes), `checkpoints/`,
            `network/`, `best/`, `metrics.jsonl`, `tensorboard/`, `pictures/`. Only one run at a
            time may work in it.
        config: what to train, and how.

    Raises:
        UserError: something in the config is unknown or does not fit the workdir, another run
            works in the workdir, or the loss is no longer finite.
        Preempted: the process was told to stop; the state is saved.
    """
    began = time.monotonic()
    if config.data.get("name") == "labelled" and config.data.get("path"):
        refuse_inside(Path(config.data["path"]).expanduser(), workdir)
    with _kept_for_this_run(workdir):
        training, state = _set_up(workdir, config)
        clock, flops = _fit(training, state)
        return _summarise(training, clock, flops, time.monotonic() - began)


@dataclasses.dataclass(frozen=True, eq=False)
class _Training:
    """A training that is ready to run.

    Attributes:
        config: its options.
        mesh: its devices.
        folder: its workdir.
        task: what is trained on what.
        judge: how it is judged.
        optimizer: its optimiser.
        start: updates done before.
        stream: of the batches from there on.
    """

    config: TrainConfig
    mesh: Mesh
    folder: Workdir
    task: Task
    judge: Evaluation
    optimizer: optax.GradientTransformation
    start: int
    stream: Batches


def _set_up(workdir: Path, config: TrainConfig) -> tuple[_Training, TrainState]:
    """Opens data, networks and workdir; makes the state, fresh or from the newest checkpoint."""
    mesh = parallel.data_mesh()
    part = _part(config, mesh.devices.size)
    folder = Workdir(workdir, config)
    task = make_task(config, part, mesh)
    judge = Evaluation(task, part, config.seed, mesh, config.evaluation.regressor)
    optimizer = make_optimizer(config.optimizer, config.steps, task.objective.trained)

    init = "" if folder.resumes else config.init  # which may be gone meanwhile
    variables = {**initial_variables(task.network, config.seed, init), **task.statistics}
    state = parallel.replicate(create_state(variables, optimizer), mesh)
    state = folder.begin(state, task.contents)
    start = int(state.step)
    if start > config.steps:
        raise UserError(
            f"{workdir} is at step {start} already: give --config.steps={start} or more instead "
            f"of {config.steps}."
        )
    stream = batches(
        task.train_set, config.batch_size, config.seed, start, config.workers,
        parallel.process_index(), parallel.process_count(),
    )  # fmt: skip
    return _Training(config, mesh, folder, task, judge, optimizer, start, stream), state


def _fit(training: _Training, state: TrainState) -> tuple[Clock, float]:
    """Makes the updates that remain, evaluates and saves; returns their clock, and FLOPs of one."""
    config, folder, task, start = training.config, training.folder, training.task, training.start
    update, flops, clock = None, 0.0, Clock()
    pending: collections.deque[tuple[int, Any]] = collections.deque()
    silent = parallel.process_index() != 0

    def evaluate(step: int) -> None:
        metrics = training.judge.metrics(state.ema)
        folder.evaluated(state, task.network, metrics, task.objective.best)
        reporter.evaluated(step, metrics, training.judge.picture(state.ema))

    with (
        stop_requests() as requested,
        Reporter(folder.path, start, config.steps, silent) as reporter,
    ):
        if start == config.steps or (start and start % config.evaluate_every == 0):
            # Stopped before its evaluation, or killed before its network was whole, perhaps.
            with clock.stopped():
                if folder.best is None or folder.last["step"] < start:
                    evaluate(start)
                folder.save_network(state, task.network)
        for step in range(start + 1, config.steps + 1):
            batch = parallel.shard_batch(next(training.stream), training.mesh)
            if update is None:
                with clock.stopped():
                    update, flops = _compile_update(training, state, batch)
            state, metrics = update(state, *batch)
            pending.append((step, metrics))
            clock.tick()
            reporter.update()

            last = step == config.steps
            stop = requested(step) and not last
            log, look, save = (
                last or step % n == 0
                for n in (config.log_every, config.evaluate_every, config.save_every)
            )
            while len(pending) > (0 if log or look or save or stop else AHEAD):
                values = _check_finite(*pending.popleft(), folder)
            if log:
                reporter.log(step, values, clock.lap() * config.batch_size)
            with clock.stopped():
                if look and not stop:
                    evaluate(step)
                if save or stop:
                    folder.save(state, task.network)
            if stop:
                folder.close()
                raise Preempted(
                    f"Stopped and saved after {step} of {config.steps} updates: "
                    "run the same command again."
                )
    folder.close()
    return clock, flops


def _summarise(training: _Training, clock: Clock, flops: float, seconds: float) -> Summary:
    """Speed of the updates, the evaluations, and what could not be read by any process."""
    rate, mesh, folder = clock.rate(), training.mesh, training.folder
    peak = chips.peak_flops(mesh.devices.flat[0])
    skipped = [*training.task.skipped, *training.stream.skipped]
    return Summary(
        workdir=folder.path,
        step=training.config.steps,
        seconds=seconds,
        images_per_second=rate * training.config.batch_size,
        flops_per_second=rate * flops,
        flop_utilisation=rate * flops / (peak * mesh.size) if peak else None,
        metrics=folder.last["metrics"],
        best=folder.best,
        judged_by=training.task.objective.best,
        skipped=len(set().union(*parallel.gather("what was skipped", skipped))),
    )


@contextlib.contextmanager
def _kept_for_this_run(workdir: Path) -> Iterator[None]:
    """Process 0 keeps other runs out of the folder."""
    with locked(workdir) if parallel.process_index() == 0 else contextlib.nullcontext():
        yield


def _part(config: TrainConfig, devices: int) -> int:
    """How many images are computed at once, on all devices together."""
    if config.batch_size % (config.accumulate * devices):
        raise UserError(
            f"config.batch_size={config.batch_size} must be a multiple of {devices} devices x "
            f"config.accumulate={config.accumulate}."
        )
    return config.batch_size // config.accumulate


def _compile_update(training: _Training, state: TrainState, batch: Any) -> tuple[Any, float]:
    """The compiled update, which consumes its state, and its floating-point operations."""
    config, task = training.config, training.task
    update = jax.jit(
        make_update(
            task.objective.loss, training.optimizer, config.ema_decay, config.steps, config.seed,
            task.prepare, config.accumulate,
        ),
        donate_argnums=0,
        out_shardings=parallel.replicated(training.mesh),
    )  # fmt: skip
    traced = update.trace(state, *batch)
    return traced.lower().compile(), traced_flops(traced)


def _check_finite(step: int, metrics: Mapping[str, jax.Array], folder: Workdir) -> dict[str, float]:
    values = {name: float(value) for name, value in metrics.items()}
    for name in ("loss", "grad_norm"):
        if not math.isfinite(values[name]):
            raise UserError(
                f"The {name} is {values[name]} at step {step}; {folder.last_good}. "
                "Try a lower config.optimizer.learning_rate, or config.optimizer.clip."
            )
    return values
