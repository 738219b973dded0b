"""This package's side of the measurement."""

import time
from collections.abc import Callable
from pathlib import Path

import jax

from diffcf_jax import parallel
from diffcf_jax.checkpoint.store import load_network
from diffcf_jax.counterfactual.build import build_method
from diffcf_jax.counterfactual.engine import Job, Statistics, explain_all
from diffcf_jax.counterfactual.programs import compile_programs
from eval.speed.job import read_job, serve


def prepare(folder: Path) -> tuple[Callable[[], None], Callable[[], tuple[float, int]]]:
    """Compiles the programs and starts a batch; returns one iteration of it and a whole run."""
    job, images, targets = read_job(folder)
    generator, regressor = (load_network(folder / role) for role in ("generator", "regressor"))
    options = {key: value for key, value in job["method"].items() if key != "name"}
    method = build_method(job["method"]["name"], generator, regressor.module.apply, options)
    # A batch that nothing stops, so that every iteration works.
    endless = build_method(
        job["method"]["name"], generator, regressor.module.apply, options | {"threshold": -1.0}
    )
    mesh = parallel.data_mesh(jax.local_devices()[:1])
    params = parallel.replicate(
        {"generator": generator.variables, "regressor": regressor.variables}, mesh
    )
    batch = job["batch"]
    programs = compile_programs(endless, params, images.shape[1:], batch, mesh)
    states = programs.empty()
    for i, state in enumerate(programs.init(list(images[:batch]), list(targets[:batch]), 0)):
        states = programs.put(states, state, i)

    def iterate() -> None:
        nonlocal states
        states, seen = programs.step(states)
        jax.block_until_ready(seen)

    def explain() -> tuple[float, int]:
        start, statistics = time.monotonic(), Statistics()
        jobs = [Job(i, images[i], float(targets[i])) for i in range(job["images"])]
        finished = list(explain_all(method, params, jobs, batch, 0, statistics=statistics))
        return time.monotonic() - start - statistics.compile_seconds, len(finished)

    return iterate, explain


if __name__ == "__main__":
    serve(prepare)
