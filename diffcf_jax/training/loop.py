"""Trains one network: data, update, evaluation, checkpoints, pictures."""

import collections
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from diffcf_jax import chips, parallel
from diffcf_jax.data.folder import refuse_inside
from diffcf_jax.data.loader import batches
from diffcf_jax.errors import Preempted, UserError
from diffcf_jax.flops import traced_flops
from diffcf_jax.training.evaluation import Evaluation
from diffcf_jax.training.initial import initial_variables
from diffcf_jax.training.preemption import stop_requests
from diffcf_jax.training.progress import Clock, Reporter, Summary
from diffcf_jax.training.state import create_state, make_optimizer, make_update
from diffcf_jax.training.task import make_task
from diffcf_jax.training.workdir import Workdir

AHEAD = 2  # updates that the host may be ahead of the devices
HELD_OUT_IMAGES = 256
PATIENCE = 10.0  # seconds that a process has to meet another's error itself, see `ending_together`


@parallel.ending_together(PATIENCE)
def train(
    workdir: Path,
    network: Mapping[str, Any],
    data: Mapping[str, Any],
    optimizer: Mapping[str, Any],
    steps: int,
    batch_size: int,
    ema_decay: float,
    augment: Mapping[str, bool],
    seed: int,
    log_every: int,
    evaluate_every: int,
    save_every: int,
    objective: Mapping[str, Any],
    accumulate: int = 1,
    precision: str = "float32",
    workers: int = 0,
    init: str = "",
    evaluation: Mapping[str, Any] | None = None,
    image_size: int | None = None,
) -> Summary:
    """Trains a network and writes it to `workdir/network`.

    A run that was interrupted continues from its newest checkpoint with the same stream of data
    and noise, and ends with the same network to the last bit. `workdir/network` holds the
    exponential moving average and is renewed with every checkpoint, `workdir/best` that of the
    best evaluation.

    Args:
        workdir: gets `config.json`, `checkpoints/`, `network/`, `best/`, `metrics.jsonl`,
            `tensorboard/`, `pictures/`.
        network: its description, see `make_task`.
        data: see `data.open.open_training_data`.
        optimizer: arguments of `make_optimizer`.
        steps: number of updates.
        batch_size: images an update, of all devices of all processes.
        ema_decay: of the moving average.
        augment: options of `augment.augment`.
        seed: of initialisation, data order and noise.
        log_every: updates between two lines of metrics.
        evaluate_every: updates between two evaluations on held-out images.
        save_every: updates between two checkpoints.
        objective: arguments of the network's objective.
        accumulate: parts that a batch is worked on in, one after the other; saves memory.
        precision: "float32" or "bfloat16" for the computation; parameters, optimiser, moving
            average, norms, softmax and losses are float32 in both.
        workers: processes that read images; 0 reads them in this one.
        init: network directory to start from; "" starts afresh.
        evaluation: `images`, the number of held-out images, and `regressor`, see `Evaluation`.
        image_size: in pixels, instead of the network's.

    Raises:
        UserError: something in the config is unknown or does not fit the workdir, or the loss is
            no longer finite.
        Preempted: the process was told to stop; the state is saved.

    """
    config = {name: value for name, value in locals().items() if name != "workdir"}
    options = {"images": HELD_OUT_IMAGES, "regressor": "", **(evaluation or {})}
    began = time.monotonic()
    if data.get("name") == "labelled" and data.get("path"):
        refuse_inside(Path(data["path"]).expanduser(), workdir)
    mesh = parallel.data_mesh()
    counts = {
        "steps": steps, "log_every": log_every, "evaluate_every": evaluate_every,
        "save_every": save_every, "evaluation.images": options["images"],
    }  # fmt: skip
    _check_positive(counts)
    part = _part(batch_size, accumulate, mesh.devices.size)
    folder = Workdir(workdir, config)
    if image_size is not None:
        network = {**network, "image_size": image_size}

    # What is trained, on what, and how it is judged
    task = make_task(
        network, data, objective, augment, precision, options.pop("images"), part, mesh
    )
    try:
        judge = Evaluation(task, part, seed, mesh, **options)
        tx = make_optimizer(steps, **optimizer, trained=task.objective.trained)
    except TypeError as error:
        raise UserError(f"config.optimizer or config.evaluation: {error}.") from None

    # The state, fresh or from the newest checkpoint
    init = "" if folder.resumes else init  # which may be gone meanwhile
    variables = {**initial_variables(task.network, seed, init), **task.statistics}
    state = folder.begin(parallel.replicate(create_state(variables, tx), mesh), task.contents)
    start = int(state.step)
    if start > steps:
        raise UserError(f"{workdir} is at step {start} already; config.steps={steps} is less.")

    # The updates
    stream = batches(
        task.train_set, batch_size, seed, start, workers,
        parallel.process_index(), parallel.process_count(),
    )  # fmt: skip
    update = jax.jit(
        make_update(task.objective.loss, tx, ema_decay, steps, seed, task.prepare, accumulate),
        donate_argnums=0,
        out_shardings=parallel.replicated(mesh),
    )
    flops, clock = 0.0, Clock()
    ahead: collections.deque[tuple[int, Any]] = collections.deque()

    def evaluate(step: int) -> None:
        metrics = judge.metrics(state.ema)
        folder.evaluated(state, task.network, metrics, task.objective.best)
        reporter.evaluated(step, metrics, judge.picture(state.ema))

    with (
        stop_requests() as requested,
        Reporter(workdir, start, steps, silent=parallel.process_index() != 0) as reporter,
    ):
        if start == steps or (start and start % evaluate_every == 0):
            # Stopped before its evaluation, or killed before its network was whole, perhaps.
            with clock.stopped():
                if folder.best is None or folder.last["step"] < start:
                    evaluate(start)
                folder.save_network(state, task.network)
        for step in range(start + 1, steps + 1):
            batch = parallel.shard_batch(next(stream), mesh)
            if step == start + 1:
                with clock.stopped():
                    traced = update.trace(state, *batch)
                    flops = traced_flops(traced)
                    update = traced.lower().compile()
            state, found = update(state, *batch)
            ahead.append((step, found))
            clock.tick()
            reporter.update()

            stop = requested(step) and step < steps
            log, look, save = (
                step % n == 0 or step == steps for n in (log_every, evaluate_every, save_every)
            )
            while len(ahead) > (0 if log or look or save or stop else AHEAD):
                values = _check_finite(*ahead.popleft(), folder)
            if log:
                reporter.log(step, values, clock.lap() * batch_size)
            with clock.stopped():
                if look and not stop:
                    evaluate(step)
                if save or stop:
                    folder.save(state, task.network)
            if stop:
                folder.close()
                raise Preempted(
                    f"Stopped and saved after {step} of {steps} updates: "
                    "run the same command again."
                )

    folder.close()
    rate = clock.rate()
    peak = chips.peak_flops(mesh.devices.flat[0])
    skipped = parallel.gather("what was skipped", [*task.skipped, *stream.skipped])
    return Summary(
        workdir=workdir,
        step=steps,
        seconds=time.monotonic() - began,
        images_per_second=rate * batch_size,
        flops_per_second=rate * flops,
        flop_utilisation=rate * flops / (peak * mesh.size) if peak else None,
        metrics=folder.last["metrics"],
        best=folder.best,
        judged_by=task.objective.best,
        skipped=len(set().union(*skipped)),
    )


def _check_positive(counts: Mapping[str, int]) -> None:
    for name, count in counts.items():
        if count < 1:
            raise UserError(f"config.{name}={count} must be at least 1.")


def _part(batch_size: int, accumulate: int, devices: int) -> int:
    if accumulate < 1 or batch_size < 1 or batch_size % (accumulate * devices):
        raise UserError(
            f"config.batch_size={batch_size} must be a multiple of {devices} devices x "
            f"config.accumulate={accumulate}."
        )
    return batch_size // accumulate


def _check_finite(step: int, metrics: Mapping[str, jax.Array], folder: Workdir) -> dict[str, float]:
    values = {name: float(value) for name, value in metrics.items()}
    for name in ("loss", "grad_norm"):
        if not math.isfinite(values[name]):
            raise UserError(
                f"The {name} is {values[name]} at step {step}; {folder.last_good}. "
                "Try a lower config.optimizer.learning_rate, or config.optimizer.clip."
            )
    return values
