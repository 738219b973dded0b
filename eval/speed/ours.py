"""This package's side of the measurement."""

import dataclasses
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from diffcf_jax import cli, parallel
from diffcf_jax.checkpoint.store import load_network
from diffcf_jax.counterfactual.batching import Engine
from diffcf_jax.counterfactual.events import Job, Statistics
from diffcf_jax.counterfactual.methods import method_options
from diffcf_jax.counterfactual.programs import compile_programs
from diffcf_jax.training.augment import augment
from diffcf_jax.training.config import Augmentation, OptimizerConfig
from diffcf_jax.training.initial import initial_variables
from diffcf_jax.training.objectives import make_objective
from diffcf_jax.training.state import create_state, make_optimizer, make_update
from diffcf_jax.training.task import make_module, to_unit

from .job import read_job, serve

STEPS = 100_000  # the length of the training, which sets the schedule


def prepare(
    folder: Path,
) -> tuple[Callable[[], None], Callable[[], tuple[float, float, int]] | None]:
    """Compiles the programs and starts a batch; returns one iteration of it and a whole run."""
    job, images, targets = read_job(folder)
    if job["method"] is None:
        cli.keep_memory()  # as train.py does
        return _update(job, images), None
    generator, regressor = (load_network(folder / role) for role in ("generator", "regressor"))
    options = {key: value for key, value in job["method"].items() if key != "name"}
    options = method_options(job["method"]["name"], options)
    method, endless = (
        some.bind(generator, regressor.module.apply)
        # A batch that nothing stops, so that every iteration works.
        for some in (options, dataclasses.replace(options, threshold=0.0))
    )
    mesh = _mesh(job["batch"])
    params = parallel.replicate(
        {"generator": generator.variables, "regressor": regressor.variables}, mesh
    )
    batch = job["batch"]
    programs = compile_programs(endless, params, images.shape[1:], batch, mesh)
    states = programs.empty()
    started = [Job(i, images[i], float(targets[i])) for i in range(batch)]
    for i, state in enumerate(programs.init(started, 0)):
        states = programs.put(states, state, i)

    def iterate() -> None:
        nonlocal states
        states, seen = programs.step(states)
        jax.block_until_ready(seen)

    def explain() -> tuple[float, float, int]:
        start, statistics = time.monotonic(), Statistics()
        jobs = [Job(i, images[i], float(targets[i])) for i in range(job["images"])]
        for event in Engine(method, params, batch, seed=0).run(jobs):
            statistics = statistics.add(event)
        return time.monotonic() - start, statistics.compile_seconds, statistics.images

    return iterate, explain


def _mesh(batch: int) -> Mesh:
    """All devices where they can share the batch, else one."""
    devices = jax.local_devices()
    return parallel.data_mesh(devices if batch % len(devices) == 0 else devices[:1])


def _update(job: Mapping[str, Any], images: np.ndarray) -> Callable[[], None]:
    """One update of a training, in float32."""
    network, training = job["network"], job["training"]
    objective = make_objective(network, make_module(network, "float32"), training["objective"])
    optimizer = make_optimizer(OptimizerConfig(**training["optimizer"]), STEPS)
    mesh = _mesh(len(images))
    state = create_state(initial_variables(network, seed=0), optimizer)
    state = parallel.replicate(state, mesh)
    images = np.round(255 * images).astype(np.uint8)
    batch = parallel.shard_batch((images, np.zeros(len(images), np.float32)), mesh)

    def prepared(batch: jax.Array, key: jax.Array) -> jax.Array:
        return augment(to_unit(batch), key, Augmentation(**training["augment"]))

    update = make_update(objective.loss, optimizer, training["ema_decay"], STEPS, 0, prepared)
    update = jax.jit(update, donate_argnums=0, out_shardings=parallel.replicated(mesh))
    update = update.lower(state, *batch).compile()

    def iterate() -> None:
        nonlocal state
        state, metrics = update(state, *batch)
        jax.block_until_ready(metrics)

    return iterate


if __name__ == "__main__":
    serve(prepare)
