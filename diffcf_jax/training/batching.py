"""Applies a function to many rows, batch by batch over all devices, and collects what it gives."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from diffcf_jax import parallel

# Rows, int64 [n] -> arrays with n rows each.
Read = Callable[[np.ndarray], tuple[np.ndarray, ...]]


class Mapper:
    """Applies a function to many rows, batch by batch over all devices; compiles it once.

    Args:
        compute: (variables, number of the batch, *arrays) -> arrays with one row for each of
            theirs.
        mesh: the devices.
    """

    def __init__(self, compute: Callable, mesh: Mesh):
        self._compute = jax.jit(compute)
        self._mesh = mesh

    def __call__(self, variables: Any, read: Read, count: int, batch_size: int) -> Any:
        """Returns what `compute` gives for all rows, as numpy arrays with `count` rows.

        Args:
            variables: replicated on the mesh.
            read: reads rows; every process reads its own part of a batch.
            count: number of rows.
            batch_size: rows at a time, of all processes; a multiple of the devices. The last
                batch is filled up with its last row, and what comes of that is dropped.
        """
        share = batch_size // parallel.process_count()
        mine = slice(parallel.process_index() * share, (parallel.process_index() + 1) * share)
        found = []
        for i, start in enumerate(range(0, count, batch_size)):
            rows = np.minimum(np.arange(start, start + batch_size), count - 1)
            arrays = parallel.shard_batch(read(rows[mine]), self._mesh)
            out = self._compute(variables, np.int32(i), *arrays)
            valid = min(batch_size, count - start)
            whole = multihost_utils.process_allgather(out, tiled=True)
            found.append(jax.tree.map(lambda x, n=valid: np.asarray(x)[:n], whole))
        return jax.tree.map(lambda *parts: np.concatenate(parts), *found)
