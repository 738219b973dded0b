"""Runs a method over many images: every slot of a fixed batch works on an image of its own.

Three compiled programs (`init`, `step`, `finish`, see `programs`), and between them queues of
single images (see `slots`). An image that stops leaves its slot at once and the next one takes
it, so that no step is spent on finished images while others are waiting.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np
from absl import logging

from diffcf_jax import chips, parallel
from diffcf_jax.counterfactual.memory import out_of_memory
from diffcf_jax.counterfactual.programs import compile_programs, largest_programs
from diffcf_jax.counterfactual.slots import Finished, Job, Slots, Statistics, Waiting
from diffcf_jax.counterfactual.types import Method
from diffcf_jax.errors import UserError

__all__ = ["Finished", "Job", "Statistics", "explain_all"]


def explain_all(
    method: Method,
    params: Any,
    jobs: Iterable[Job],
    batch_size: int | str,
    seed: int,
    on_step: Callable[[np.ndarray], None] = lambda misses: None,
    count: int | None = None,
    statistics: Statistics | None = None,
    log: Callable[[str], None] = logging.info,
) -> Iterator[Finished]:
    """Yields the result of every job, in the order in which they finish.

    An image's result depends on (method, params, seed, image, target) only: batch, devices and
    neighbours decide nothing but the speed. The work is spread over the devices of this process.

    Args:
        method: see `types.Method`.
        params: {"generator": variables, "regressor": variables}.
        jobs: read lazily, a batch ahead.
        batch_size: number of slots, rounded up to a multiple of the number of devices; "auto":
            as many as fit into the memory. Where memory runs out, the run goes on with half.
        seed: of all randomness.
        on_step: called after every step with |y^ - target| of the images in work.
        count: number of jobs where it is known; then there are not many more slots than images.
        statistics: is filled in.
        log: is told what was compiled, in one line.

    Raises:
        UserError: not even one image on each device fits into the memory.
    """
    statistics = statistics or Statistics()
    mesh = parallel.data_mesh(jax.local_devices())
    params = parallel.replicate(params, mesh)
    waiting = Waiting(jobs)
    peak = chips.peak_flops(mesh.local_devices[0])
    statistics.peak_flops = peak and peak * mesh.size
    size: int | None = None
    if batch_size != "auto":
        size = -(-min(batch_size, count or batch_size) // mesh.size) * mesh.size
    while waiting:
        slots: Slots | None = None
        began = time.monotonic()
        try:
            shape = waiting.image_shape()
            if size is None:
                # At least four images for each slot, so that few slots wait for the last image.
                most = mesh.size * 1024 if count is None else -(-count // 4)
                programs = largest_programs(method, params, shape, mesh, most)
            else:
                programs = compile_programs(method, params, shape, size, mesh)
            size = programs.slots
            log(programs.describe())
            statistics.slots = max(statistics.slots, size)
            statistics.compile_seconds += time.monotonic() - began
            statistics.flops = programs.flops
            slots = Slots(programs, waiting, seed, statistics)
            yield from slots.run(on_step)
        except jax.errors.JaxRuntimeError as error:
            if not out_of_memory(error):
                raise
            if size is None or size == mesh.size:
                raise UserError(
                    "One image on each device does not fit into the memory: set "
                    "config.method.remat, a smaller method, or take a device with more memory."
                ) from error
            if slots is not None:
                slots.give_up()
            log("Out of memory: going on with half of the slots.")
        size = max(1, size // (2 * mesh.size)) * mesh.size
