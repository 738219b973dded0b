"""Trains one network: data, update, evaluation, checkpoints, pictures."""

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tqdm

from diffcf_jax.checkpoint import store
from diffcf_jax.checkpoint.network import build_module, init_variables
from diffcf_jax.data.squares import Squares
from diffcf_jax.diffusion.schedule import make_diffusion
from diffcf_jax.errors import UserError
from diffcf_jax.training.metrics import MetricWriter
from diffcf_jax.training.objectives import DDPMObjective, DiffAEObjective, RegressionObjective
from diffcf_jax.training.state import create_state, make_optimizer, make_update

EVALUATION_IMAGES = 256
PICTURED_IMAGES = 8


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
) -> dict[str, float]:
    """Trains a network and writes it to `workdir/network`.

    A run that was interrupted continues from its newest checkpoint with the same stream of data
    and noise. `workdir/network` holds the exponential moving average and is renewed with every
    checkpoint.

    Args:
        workdir: gets `checkpoints/`, `network/`, `metrics.jsonl`, `tensorboard/`, `pictures/`.
        network: its description, see `checkpoint.network.Network`.
        data: `name` of the data set.
        optimizer: arguments of `make_optimizer`.
        steps: number of updates.
        batch_size: images an update.
        ema_decay: of the moving average.
        augment: `flips` and `rolls` of `make_update`.
        seed: of initialisation, data order and noise.
        log_every: updates between two lines of metrics.
        evaluate_every: updates between two evaluations on held-out images.
        save_every: updates between two checkpoints.
        objective: arguments of the network's objective.

    Returns:
        The last evaluation.

    Raises:
        UserError: something in the config is unknown or does not fit the workdir, or the loss is
            no longer finite.

    """
    train_set, held_out = _datasets(data)
    goal = make_objective(network, objective)
    tx = make_optimizer(steps, **optimizer)
    key = jax.random.key(seed)
    variables = init_variables(network, jax.random.fold_in(key, 0))
    checkpoints = store.training_checkpoints(workdir / "checkpoints")
    state = store.restore_state(checkpoints, create_state(variables, tx))
    start = int(state.step)

    update = jax.jit(make_update(goal.loss, tx, ema_decay, steps, **augment), donate_argnums=0)
    evaluate = jax.jit(goal.evaluate)
    picture = jax.jit(goal.picture)
    key_update, key_evaluate = jax.random.fold_in(key, 1), jax.random.fold_in(key, 2)
    count = min(EVALUATION_IMAGES, len(held_out))
    # Evenly spread, because neighbours in a grid look alike.
    chosen = np.linspace(0, len(held_out) - 1, count).astype(int)
    test_images = jnp.asarray(held_out.images[chosen], jnp.float32) / 255
    test_labels = jnp.asarray(held_out.labels[chosen])
    pictured = test_images[:: max(1, count // PICTURED_IMAGES)][:PICTURED_IMAGES]

    made = {
        "data": dict(data),
        "objective": dict(objective),
        "optimizer": dict(optimizer),
        "augment": dict(augment),
        **{"steps": steps, "batch_size": batch_size, "ema_decay": ema_decay, "seed": seed},
    }
    writer = MetricWriter(workdir, start)
    evaluation: dict[str, float] = {}
    batches = batch_indices(len(train_set), batch_size, seed, start)
    since, since_step = time.monotonic(), start
    with tqdm.tqdm(total=steps, initial=start, unit="step", dynamic_ncols=True) as progress:
        for step in range(start + 1, steps + 1):
            rows = next(batches)
            images, labels = train_set.images[rows], train_set.labels[rows]
            state, metrics = update(state, images, labels, key_update)

            due = [step % n == 0 or step == steps for n in (log_every, evaluate_every, save_every)]
            if any(due):
                values = {f"train/{name}": float(v) for name, v in metrics.items()}
                if not np.isfinite(values["train/loss"]):
                    raise UserError(
                        f"The loss is {values['train/loss']} at step {step}; the last good "
                        f"checkpoint is of step {checkpoints.latest_step() or 0}."
                    )
                now = time.monotonic()
                rate = (step - since_step) * batch_size / (now - since)
                since, since_step = now, step
                writer.scalars(step, {**values, "images_per_second": rate})
                progress.set_postfix(loss=f"{values['train/loss']:.4f}", refresh=False)
            progress.update()

            if due[1]:
                found = evaluate(state.ema, test_images, test_labels, key_evaluate)
                evaluation = {name: float(v) for name, v in found.items()}
                writer.scalars(step, {f"test/{name}": v for name, v in evaluation.items()})
                shown = picture(state.ema, pictured, key_evaluate)
                if shown is not None:
                    writer.picture(step, [np.asarray(row) for row in shown])
                report = ", ".join(f"{name} {v:.4g}" for name, v in evaluation.items())
                progress.write(f"step {step}: {report}")
                since, since_step = time.monotonic(), step

            if due[2]:
                store.save_state(checkpoints, step, state)
                store.save_network(workdir / "network", {**network, "training": made}, state.ema)
                since, since_step = time.monotonic(), step
    checkpoints.close()
    writer.close()
    return evaluation


def make_objective(network: Mapping[str, Any], arguments: Mapping[str, Any]) -> Any:
    """Makes the objective that trains a network of this kind."""
    module = build_module(network)
    if network["kind"] == "ddpm":
        return DDPMObjective(module, make_diffusion(**network["diffusion"]), **arguments)
    if network["kind"] == "diffae":
        return DiffAEObjective(module, make_diffusion(**network["diffusion"]), **arguments)
    return RegressionObjective(module, **arguments)


def batch_indices(size: int, batch_size: int, seed: int, start: int) -> Iterator[np.ndarray]:
    """Yields the rows of each batch from update `start` on: a fresh shuffle every epoch.

    The rows of a batch depend on (seed, update) only. An epoch's last rows that do not fill a
    batch are left out.
    """
    batches = size // batch_size
    if batches == 0:
        raise UserError(f"config.batch_size={batch_size} is larger than the data set ({size}).")
    epoch, batch = divmod(start, batches)
    while True:
        order = np.random.default_rng([seed, epoch]).permutation(size)
        for i in range(batch, batches):
            yield order[i * batch_size : (i + 1) * batch_size]
        epoch, batch = epoch + 1, 0


def _datasets(data: Mapping[str, Any]) -> tuple[Squares, Squares]:
    if data["name"] != "squares":
        raise UserError(f"Unknown data set config.data.name='{data['name']}'; choose squares.")
    return Squares("train"), Squares("validation")
