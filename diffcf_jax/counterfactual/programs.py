"""The compiled programs of a method for a fixed number of slots, and how many slots fit."""

import contextlib
import dataclasses
import functools
import gc
import time
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax.sharding import Mesh

from diffcf_jax import parallel
from diffcf_jax.counterfactual.memory import (
    free_bytes,
    memory_bytes,
    out_of_memory,
    return_freed_memory,
)
from diffcf_jax.counterfactual.types import Method, Query
from diffcf_jax.flops import traced_flops
from diffcf_jax.target import Target, bounds

if TYPE_CHECKING:
    from diffcf_jax.counterfactual.events import Job

# The rest is for states in transit, fragmentation, and on a CPU for everything else that runs.
_SHARE_OF_FREE_MEMORY = 0.9
_SHARE_OF_FREE_CPU_MEMORY = 0.6


@dataclasses.dataclass(frozen=True)
class Programs:
    """`init`, `step` and `finish` of a method, each compiled once for all slots.

    The slots are spread over the devices of a mesh and the params are on each of them; no slot
    depends on another, so the devices never communicate.

    Attributes:
        params: {"generator": variables, "regressor": variables}, on every device.
        slots: images that `init` and `step` work on; a multiple of the number of devices.
        judges: images that `finish` works on.
        bytes: memory per device that the largest program needs, params and states included.
        flops: operations of one iteration of one image, every turn of its loops counted.
        seconds: time spent compiling.
        method: what was compiled.
    """

    params: Any
    mesh: Mesh
    slots: int
    judges: int
    bytes: int
    flops: float
    seconds: float
    method: Method
    _init: jax.stages.Compiled
    _step: jax.stages.Compiled
    _finish: jax.stages.Compiled
    _put: Callable[[Any, Any, int], Any]
    _empty: Any  # shapes of the slots' states

    def describe(self) -> str:
        """One line on what was compiled."""
        devices = f"{self.mesh.size} devices" if self.mesh.size > 1 else "1 device"
        return (
            f"{self.slots} slots on {devices}: {self.bytes / 2**30:.2f} GiB per device, "
            f"{self.flops / 1e9:.3g} GFLOP per iteration and image, "
            f"compiled in {self.seconds:.1f} s"
        )

    def empty(self) -> Any:
        """States of slots that hold no image; no step changes them."""
        states = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), self._empty)
        states = states.replace(stopped=np.ones(self.slots, bool))
        return parallel.shard_batch(states, self.mesh)

    def init(self, jobs: Sequence["Job"], seed: int) -> list[Any]:
        """Starts the jobs of at most `slots` images and returns their states on the host.

        The random key of an image is made from the seed and the image's own content, so that
        neither its place in a folder nor its neighbours in the batch matter. Jobs that differ in
        their target only are started together: they share all that comes before the target
        matters, with Newton's solvers the first gradient too, and all arrays but the query's.
        """
        contents = [job.content() for job in jobs]
        distinct = dict(zip(contents, jobs, strict=True))
        images = [job.image for job in distinct.values()]
        allowed = [
            np.ones(job.image.shape[:2]) if job.allowed is None else job.allowed
            for job in distinct.values()
        ]
        keys = [zlib.crc32(np.ascontiguousarray(image)) for image in images]
        rows = images, np.asarray(allowed, np.float32)[..., None], np.asarray(keys, np.uint32)
        batch = [_fill(np.asarray(row), self.slots) for row in rows]
        batch = parallel.shard_batch(batch, self.mesh)
        # A raw key, because a typed one has no form on the host.
        key = parallel.replicate(jax.random.PRNGKey(seed), self.mesh)
        states = self._init(self.params, *batch, key)
        if self.method.shares_first_step:
            states, _ = self._step(self.params, states)
        states = _unstack(states, len(images))
        return_freed_memory()
        started = dict(zip(distinct, states, strict=True))
        return [_asked(started[of], job.target) for of, job in zip(contents, jobs, strict=True)]

    def step(self, states: Any) -> tuple[Any, tuple[jax.Array, jax.Array]]:
        """One iteration of every slot.

        Returns:
            The states, which take the place of the old ones in memory; and of each slot `stopped`
            and how far y^ is from what counts. Nothing waits for the devices.
        """
        return self._step(self.params, states)

    def finish(self, states: Sequence[Any]) -> Any:
        """Judges at most `judges` states; does not wait for the devices (see `fetch`)."""
        stacked = jax.tree.map(lambda *leaves: _fill(np.stack(leaves), self.judges), *states)
        return self._finish(self.params, parallel.shard_batch(stacked, self.mesh))

    def another(self, start: Any, found: Any) -> Any:
        """The state of the search for the next answer, on the host; see `types.Method`."""
        return jax.device_get(_another(self.method, start, found))

    @staticmethod
    def fetch(states: Any, count: int) -> list[Any]:
        """The first of the judged states, on the host."""
        return _unstack(states, count)

    def put(self, states: Any, state: Any, slot: int) -> Any:
        """Writes one state into a slot; the states given are used up."""
        return self._put(states, parallel.replicate(state, self.mesh), slot)

    def take(self, states: Any, slot: int) -> Any:
        """Reads the state of a slot, from the one device that holds it, without waiting."""
        each = self.slots // self.mesh.size

        def shard(leaf: jax.Array) -> jax.Array:
            return next(
                part.data
                for part in leaf.addressable_shards
                if (part.index[0].start or 0) == slot // each * each
            )

        return _take(jax.tree.map(shard, states), slot % each)


def compile_programs(
    method: Method, params: Any, image_shape: tuple[int, ...], slots: int, mesh: Mesh
) -> Programs:
    """Compiles a method for a number of slots, a multiple of the number of devices.

    Args:
        method: see `types.Method`.
        params: replicated over the mesh.
        image_shape: [H, W, C].
        slots: images in work at a time.
        mesh: with the axis "data".
    """
    start = time.monotonic()
    judges = -(-slots // (4 * mesh.size)) * mesh.size
    one, many = parallel.replicated(mesh), parallel.batch_sharding(mesh)
    finish = jax.jit(
        jax.vmap(method.finish, in_axes=(None, 0)), in_shardings=(one, many), out_shardings=many
    )
    with _full_precision(mesh), ThreadPoolExecutor() as threads:
        # Each is compiled while the next is traced.
        init = _lower_init(method, params, image_shape, slots, mesh)
        empty = _shapes(init.out_info)
        compiling = [threads.submit(init.compile)]
        step = _jit_step(method, mesh).trace(params, empty)
        flops = traced_flops(step) / slots
        compiling.append(threads.submit(step.lower().compile))
        finish = finish.lower(params, _shapes(empty, judges))
        compiling.append(threads.submit(finish.compile))
        init, step, finish = (program.result() for program in compiling)
    needed = max(map(memory_bytes, (init, step, finish)))
    _return_compilers_memory()
    return Programs(
        params=params,
        mesh=mesh,
        slots=slots,
        judges=judges,
        bytes=needed,
        flops=flops,
        seconds=time.monotonic() - start,
        method=method,
        _init=init,
        _step=step,
        _finish=finish,
        _put=jax.jit(_put, donate_argnums=0, out_shardings=many),
        _empty=empty,
    )


def _return_compilers_memory() -> None:
    gc.collect()  # traced programs lie in cycles
    return_freed_memory()


def largest_programs(
    method: Method, params: Any, image_shape: tuple[int, ...], slots: int, mesh: Mesh
) -> Programs:
    """Compiles a method for as many slots as fit into the memory that is free.

    The step is compiled for one and for two images per device; its memory grows linearly from
    there. The programs of the size found are then compiled, and again for fewer slots where they
    need more than is free.

    Args:
        method: see `types.Method`.
        params: replicated over the mesh.
        image_shape: [H, W, C].
        slots: at most that many.
        mesh: with the axis "data".
    """
    held = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    share = _SHARE_OF_FREE_CPU_MEMORY if jax.default_backend() == "cpu" else _SHARE_OF_FREE_MEMORY
    limit = held + share * min(map(free_bytes, mesh.local_devices))
    most = max(1, slots // mesh.size)  # per device, from here on
    fit = 1
    if most > 1:
        steps = (
            _fitting(compile_step, method, params, image_shape, n * mesh.size, mesh) for n in (1, 2)
        )
        one, two = (step and memory_bytes(step) for step in steps)
        if one and two:
            fit = min(most, max(1, 1 + int((limit - one) / max(two - one, 1))))
    while fit > 1:
        programs = _fitting(compile_programs, method, params, image_shape, fit * mesh.size, mesh)
        if programs and programs.bytes <= limit:
            return programs
        fit = min(fit - 1, int(fit * limit / programs.bytes)) if programs else fit // 2
    return compile_programs(method, params, image_shape, mesh.size, mesh)


def compile_step(
    method: Method, params: Any, image_shape: tuple[int, ...], slots: int, mesh: Mesh
) -> jax.stages.Compiled:
    """The program of one iteration alone: (params, states) -> (states, (stopped, misses))."""
    with _full_precision(mesh):
        states = _shapes(_lower_init(method, params, image_shape, slots, mesh).out_info)
        return _jit_step(method, mesh).lower(params, states).compile()


def _fitting(compile_: Callable[..., Any], *arguments: Any) -> Any:
    """What is compiled, or None where the compiler finds that it cannot fit (as that of TPUs)."""
    try:
        return compile_(*arguments)
    except jax.errors.JaxRuntimeError as error:
        if out_of_memory(error):
            return None
        raise


def _full_precision(mesh: Mesh) -> contextlib.AbstractContextManager:
    """Context in which GPUs and TPUs multiply float32 numbers with all their bits."""
    if mesh.devices.flat[0].platform == "cpu":
        return contextlib.nullcontext()
    return jax.default_matmul_precision("float32")


def _lower_init(
    method: Method, params: Any, image_shape: tuple[int, ...], slots: int, mesh: Mesh
) -> jax.stages.Lowered:
    def start(params: Any, image: Any, allowed: Any, id: Any, key: Any) -> Any:
        query = Query.of(image, 0.0, allowed)  # what is asked for comes later
        return method.init(params, query, jax.random.fold_in(key, id))

    init = jax.vmap(start, in_axes=(None, 0, 0, 0, None))

    one, many = parallel.replicated(mesh), parallel.batch_sharding(mesh)
    return jax.jit(init, in_shardings=(one, many, many, many, one), out_shardings=many).lower(
        params,
        jax.ShapeDtypeStruct((slots, *image_shape), np.float32),
        jax.ShapeDtypeStruct((slots, *image_shape[:2], 1), np.float32),
        jax.ShapeDtypeStruct((slots,), np.uint32),
        jax.eval_shape(lambda: jax.random.PRNGKey(0)),
    )


def _jit_step(method: Method, mesh: Mesh) -> jax.stages.Wrapped:
    def step(params: Any, states: Any) -> tuple[Any, tuple[jax.Array, jax.Array]]:
        states = jax.vmap(method.step, in_axes=(None, 0))(params, states)
        result = states.result
        y_hat = jax.vmap(lambda curve, n: curve[n - 1])(result.curve, result.iterations)
        return states, (states.stopped, jax.vmap(Query.distance)(states.query, y_hat))

    one, many = parallel.replicated(mesh), parallel.batch_sharding(mesh)
    return jax.jit(
        step, in_shardings=(one, many), out_shardings=(many, (many, many)), donate_argnums=1
    )


def _shapes(states: Any, slots: int | None = None) -> Any:
    """The shapes of states, or of as many as `slots`."""
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((slots or leaf.shape[0], *leaf.shape[1:]), leaf.dtype),
        states,
    )


def _asked(state: Any, target: Target) -> Any:
    """A started state, asked for a target."""
    accept, aim = bounds(target, float(state.result.y_initial))
    return state.replace(query=state.query.replace(accept=accept, aim=aim))


def _put(states: Any, state: Any, slot: int) -> Any:
    return jax.tree.map(lambda all_, one: all_.at[slot].set(one), states, state)


@functools.partial(jax.jit, static_argnums=0)
def _another(method: Method, start: Any, found: Any) -> Any:
    return method.another(start, found)


@jax.jit
def _take(states: Any, slot: int) -> Any:
    return jax.tree.map(lambda leaf: leaf[slot], states)


def _fill(rows: np.ndarray, size: int) -> np.ndarray:
    """Pads a batch with copies of its first row."""
    return np.concatenate([rows, np.repeat(rows[:1], size - len(rows), axis=0)])


def _unstack(states: Any, count: int) -> list[Any]:
    states = jax.device_get(states)
    return [jax.tree.map(lambda a, i=i: a[i], states) for i in range(count)]
