"""This package's side of the measurement."""

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from diffcf_jax import cli, parallel
from diffcf_jax.checkpoint.network import Network
from diffcf_jax.checkpoint.store import load_network
from diffcf_jax.counterfactual.batching import Engine
from diffcf_jax.counterfactual.diffae_re import DiffAERE
from diffcf_jax.counterfactual.events import Compiled, Finished, Job
from diffcf_jax.counterfactual.methods import bind_method, method_options
from diffcf_jax.counterfactual.options import Options
from diffcf_jax.counterfactual.programs import compile_programs
from diffcf_jax.counterfactual.types import Counterfactual, Query
from diffcf_jax.diffusion.sampler import bind, noise_and_denoise
from diffcf_jax.training.config import Augmentation, OptimizerConfig
from diffcf_jax.training.initial import initial_variables
from diffcf_jax.training.objectives import make_objective
from diffcf_jax.training.state import create_state, make_optimizer, make_update
from diffcf_jax.training.task import loss_inputs, make_module

from .job import Commands, read_job, serve

STEPS = 100_000  # the length of the training, which sets the schedule


def prepare(folder: Path) -> Commands:
    """Compiles the programs and starts a batch; see `serve` for the commands.

    Where whole runs of trained networks are asked for, nothing is compiled beforehand.
    """
    job, images, targets = read_job(folder)
    if job["method"] is None:
        cli.keep_memory()  # as train.py does
        return {"iterate": _update(job, images)}
    generator, regressor = (load_network(folder / role) for role in ("generator", "regressor"))
    params = {"generator": generator.variables, "regressor": regressor.variables}

    def explain(options: Options, name: str) -> dict[str, Any]:
        method = bind_method(options, generator, regressor.module.apply)
        jobs = [Job(i, images[i], float(targets[i])) for i in range(job["images"])]
        found, answer = _run(Engine(method, params, job["batch"], seed=0), jobs)
        made = np.stack([counterfactual.image for counterfactual in found])
        np.save(folder / f"{name}.npy", (255 * made).round().astype(np.uint8))
        return answer

    def check() -> list[float]:
        options = _options(job["settings"]["paper"])
        made, y = _generate(options, generator, regressor, images)
        np.save(folder / "check_diffcf_jax.npy", made)
        return y.tolist()

    if job["settings"]:
        return {"check": check} | {
            f"explain {name}": functools.partial(explain, _options(options), name)
            for name, options in job["settings"].items()
        }
    options = _options(job["method"])
    # A batch that nothing stops, so that every iteration works.
    endless = bind_method(
        dataclasses.replace(options, threshold=0.0), generator, regressor.module.apply
    )
    mesh, batch = _mesh(job["batch"]), job["batch"]
    placed = parallel.replicate(params, mesh)
    programs = compile_programs(endless, placed, images.shape[1:], batch, mesh)
    states = programs.empty()
    started = [Job(i, images[i], float(targets[i])) for i in range(batch)]
    for i, state in enumerate(programs.init(started, 0)):
        states = programs.put(states, state, i)

    def iterate() -> None:
        nonlocal states
        states, seen = programs.step(states)
        jax.block_until_ready(seen)

    return {
        "iterate": iterate,
        "explain": functools.partial(explain, options, "diffcf_jax"),
    }


def _options(method: Mapping[str, Any]) -> Options:
    return method_options(method["name"], {k: v for k, v in method.items() if k != "name"})


def _run(engine: Engine, jobs: Sequence[Job]) -> tuple[list[Counterfactual], dict[str, Any]]:
    """The counterfactuals in the order of the jobs, and what the run took."""
    start, cpu = time.monotonic(), time.process_time()
    compile_seconds = compile_cpu_seconds = 0.0
    found: dict[int, Counterfactual] = {}
    for event in engine.run(jobs):
        if isinstance(event, Compiled):
            compile_seconds = time.monotonic() - start
            compile_cpu_seconds = time.process_time() - cpu
        if isinstance(event, Finished):
            found[event.job.id] = event.counterfactual
    seconds, cpu_seconds = time.monotonic() - start, time.process_time() - cpu
    ordered = [found[job.id] for job in jobs]
    return ordered, {
        "seconds": seconds, "cpu_seconds": cpu_seconds,
        "compile_seconds": compile_seconds, "compile_cpu_seconds": compile_cpu_seconds,
        "success": [bool(counterfactual.success) for counterfactual in ordered],
        "iterations": [int(counterfactual.iterations) for counterfactual in ordered],
    }  # fmt: skip


def _generate(
    options: Options, generator: Network, regressor: Network, images: np.ndarray
) -> tuple[jax.Array, jax.Array]:
    """F_tau without noise (AC-RE), or the decoded code (Diff-AE-RE); and the predictions."""
    method = bind_method(options, generator, regressor.module.apply)
    params = {"generator": generator.variables, "regressor": regressor.variables}

    def generate(image: jax.Array) -> jax.Array:
        if isinstance(options, DiffAERE):
            state = method.init(params, Query.of(image, 0.0), jax.random.key(0))
            return method.render(params, state.z, state.x_T)
        noises = jnp.zeros((options.tau, *image.shape))
        model = bind(method.denoiser, params["generator"])
        return noise_and_denoise(method.diffusion, model, 2 * image - 1, noises) / 2 + 0.5

    y = regressor.module.apply(regressor.variables, images)
    return jax.jit(jax.vmap(generate))(images), y


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

    def prepared(batch: jax.Array, key: jax.Array) -> Any:
        return loss_inputs(network["kind"], batch, key, Augmentation(**training["augment"]))

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
