"""A request to stop lets the update in hand finish; the same answer in every process of a run."""

import contextlib
from collections.abc import Callable, Iterator

from jax.experimental import multihost_utils

from diffcf_jax import parallel
from diffcf_jax.errors import Preempted
from diffcf_jax.preemption import termination


@contextlib.contextmanager
def stop_requests() -> Iterator[Callable[[int], bool]]:
    """Yields a function that takes the number of an update and returns whether to stop after it.

    It must be called after every update. In a run of several processes JAX handles SIGTERM, and
    all of them stop after the same update.
    """
    if parallel.process_count() > 1:
        yield multihost_utils.reached_preemption_sync_point
        return
    with termination() as check:

        def requested(step: int) -> bool:
            try:
                check()
            except Preempted:
                return True
            return False

        yield requested
