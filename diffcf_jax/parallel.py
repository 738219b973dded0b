"""Processes, devices and meshes, which no other file deals with.

One program serves one device, many devices and many hosts: `jit` with the leading axis of a batch
sharded over the "data" axis of a one-dimensional mesh, and everything else replicated.
"""

import contextlib
import glob
import importlib.util
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from diffcf_jax.errors import Preempted, UserError

_SHUTDOWN_SECONDS = 600  # how long a process that ends waits for the others' iteration in hand
_ASK_SECONDS = 1.0  # between two looks at what the other processes say
_ENDED = "a process has ended early"
_RUN_AGAIN = (
    "Another process of this run has ended before the work was done; what is finished stays: run "
    "the same command again on every host."
)


def initialize() -> None:
    """Joins the other processes of this run; does nothing in a single-process run.

    The processes are found where the host names them: the variables JAX_COORDINATOR_ADDRESS,
    JAX_NUM_PROCESSES and JAX_PROCESS_ID, a SLURM step or an Open MPI launch of several tasks, or
    a Cloud TPU. Must be called before anything asks for a device.

    Raises:
        UserError: the variables are incomplete, the other processes cannot be reached, or there
            is no device of the kind that JAX_PLATFORMS names.
    """
    if not jax.distributed.is_initialized():
        _join()
    find_devices()


def share_cpu(batch_size: int | str) -> None:
    """Makes a CPU two devices, which share a batch and all cores: small networks gain by half.

    Nothing changes with JAX_NUM_CPU_DEVICES in the environment, with a batch that is odd or "auto",
    on one core, and on accelerators. Must be called before anything asks for a device.
    """
    even = str(batch_size).isdecimal() and int(batch_size) % 2 == 0
    if even and (os.cpu_count() or 1) > 1 and "JAX_NUM_CPU_DEVICES" not in os.environ:
        with contextlib.suppress(RuntimeError):  # devices were asked for, and stay as they are
            jax.config.update("jax_num_cpu_devices", 2)


def find_devices() -> None:
    """Asks JAX for its devices, so that what is wrong with them is reported before any work.

    Raises:
        UserError: there is no device of the kind that JAX_PLATFORMS names.
    """
    try:
        jax.local_devices()
    except (AssertionError, RuntimeError) as error:
        reason = str(error).partition(" (set JAX_PLATFORMS")[0] or "JAX finds no such device"
        raise UserError(
            f"JAX_PLATFORMS={jax.config.jax_platforms} cannot be used here ({reason}): unset it, "
            "or install the driver and the extra that it needs, such as diffcf-jax[cuda]."
        ) from error


def _join() -> None:
    address = os.environ.get("JAX_COORDINATOR_ADDRESS")
    try:
        if address:
            _connect(
                coordinator_address=address,
                num_processes=_number("JAX_NUM_PROCESSES"),
                process_id=_number("JAX_PROCESS_ID"),
                cluster_detection_method="deactivate",
            )
        elif "SLURM_STEP_NODELIST" in os.environ and _number("SLURM_NTASKS") > 1:
            _connect(cluster_detection_method="slurm")
        elif "OMPI_COMM_WORLD_SIZE" in os.environ and _number("OMPI_COMM_WORLD_SIZE") > 1:
            _connect(cluster_detection_method="ompi")
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"The other processes of this run cannot be reached: {reason}") from error
    if not jax.distributed.is_initialized() and _has_tpu():
        try:
            _connect()
        except (OSError, ImportError, ValueError):
            return  # a TPU outside a known cloud works alone


def data_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A one-dimensional mesh with the axis "data".

    Args:
        devices: its devices; default: all devices of all processes. `jax.local_devices()` gives
            a mesh on which this process works without waiting for any other.
    """
    devices = jax.devices() if devices is None else devices
    return Mesh(np.asarray(devices), ("data",), axis_types=(AxisType.Auto,))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The leading axis over "data"."""
    return NamedSharding(mesh, PartitionSpec("data"))


def replicated(mesh: Mesh) -> NamedSharding:
    """The same values on every device."""
    return NamedSharding(mesh, PartitionSpec())


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Puts a tree of arrays, the same in every process, onto every device of the mesh."""
    return _put(tree, replicated(mesh))


def shard_batch(tree: Any, mesh: Mesh) -> Any:
    """Spreads the leading axis of every leaf over the mesh.

    Args:
        tree: this process's part of the batch; its leading axis must be a multiple of the number
            of its devices in the mesh.
        mesh: see `data_mesh`.

    Returns:
        Global arrays; the leading axis is as long as the parts of all processes together.
    """
    return _put(tree, batch_sharding(mesh))


def process_index() -> int:
    """This process's number, from 0."""
    return jax.process_index()


def process_count() -> int:
    """The number of processes of this run."""
    return jax.process_count()


@contextlib.contextmanager
def ending_together(patience: float | None = None) -> Iterator[Callable[[], None]]:
    """Ends the other processes of a run when this one leaves the block by an exception.

    Yields a function that raises, in the other processes, an error with the reason: `Preempted`
    where this process was told to stop, `UserError` for everything else. Calling it often costs
    nothing.

    Args:
        patience: seconds. Where the devices of all processes work together, a process that waits
            for one that has left is in the middle of a computation and calls nothing: this long
            after the error it prints the reason and exits with status 2. None: it is left waiting.
    """
    if process_count() == 1:
        yield lambda: None
        return
    asked = -_ASK_SECONDS
    left = threading.Event()
    watching = threading.Thread(target=_exit_after_another, args=(left, patience), daemon=True)

    def check() -> None:
        nonlocal asked
        if time.monotonic() - asked < _ASK_SECONDS:
            return
        asked = time.monotonic()
        end = _end_of_another()
        if end is not None:
            raise Preempted(_RUN_AGAIN) if end["preempted"] else UserError(_told(end))

    try:
        if patience is not None:
            watching.start()
        yield check
    except BaseException as error:
        end = {
            "process": process_index(),
            "preempted": isinstance(error, Preempted),
            "reason": str(error) or type(error).__name__,
        }
        with contextlib.suppress(RuntimeError):  # another was first, or is gone
            _client().key_value_set(_ENDED, json.dumps(end))
        raise
    finally:
        left.set()
        if patience is not None:
            watching.join()  # it may be ending this process


def wait_for_all(point: str, check: Callable[[], None] = lambda: None) -> None:
    """Returns when every process of this run has come to the same point, see `gather`."""
    gather(point, None, check)


def gather(point: str, value: Any, check: Callable[[], None] = lambda: None) -> list[Any]:
    """Exchanges a value between all processes, and waits for all of them.

    The hosts wait for each other, not the devices: nothing is compiled, and a process may come
    days later than another.

    Args:
        point: a name that is used once.
        value: anything that JSON can hold.
        check: called about once a second of waiting; what it raises ends the waiting.

    Raises:
        Preempted: another process is gone.
    """
    if process_count() == 1:
        return [value]
    _client().key_value_set(f"{point}/{process_index()}", json.dumps(value))
    return [json.loads(_await(f"{point}/{i}", check)) for i in range(process_count())]


def _client() -> Any:
    """Returns the client of the service that connects the processes: a store of texts.

    This is the one private part of JAX that the package uses. The public ways to wait or to
    exchange values (`multihost_utils`) are computations on all devices: a process that comes days
    later, or never, would block the devices of the others, and what it met could not be asked for.

    Raises:
        UserError: this version of JAX has no such client in that place.
    """
    try:
        from jax._src import distributed

        return distributed.global_state.client
    except (ImportError, AttributeError):
        raise UserError(
            f"Runs of several processes do not work with JAX {jax.__version__}: install the "
            "version in constraints.txt, or start one process."
        ) from None


def _end_of_another() -> dict[str, Any] | None:
    try:
        return json.loads(_client().key_value_try_get(_ENDED))
    except RuntimeError:  # JaxRuntimeError: nobody has
        return None


def _told(end: dict[str, Any]) -> str:
    return f"Process {end['process']} of this run has ended: {end['reason']}"


def _exit_after_another(left: threading.Event, patience: float) -> None:
    """Ends this process if another has met an error and this one does not leave by itself."""
    while not left.wait(_ASK_SECONDS):
        end = _end_of_another()
        # Those that are told to stop do so after the same update, and this one may be saving yet.
        if end is None or end["preempted"] or left.wait(patience):
            continue
        print(f"\nerror: {_told(end)}", file=sys.stderr, flush=True)
        jax.distributed.shutdown()  # waits for the others, whom a loss of process 0 would abort
        os._exit(2)


def _await(key: str, check: Callable[[], None]) -> str:
    while True:
        check()
        try:
            return _client().blocking_key_value_get(key, round(1000 * _ASK_SECONDS))
        except RuntimeError as error:  # JaxRuntimeError
            if "DEADLINE_EXCEEDED" not in str(error):
                raise Preempted(_RUN_AGAIN) from error


def _connect(**arguments: Any) -> None:
    jax.distributed.initialize(shutdown_timeout_seconds=_SHUTDOWN_SECONDS, **arguments)


def _put(tree: Any, sharding: NamedSharding) -> Any:
    if sharding.is_fully_addressable:
        return jax.device_put(tree, sharding)
    return jax.tree.map(
        lambda leaf: jax.make_array_from_process_local_data(sharding, np.asarray(leaf)), tree
    )


def _number(variable: str) -> int:
    try:
        return int(os.environ[variable])
    except (KeyError, ValueError):
        raise UserError(
            f"The environment variable {variable} must be a number, because this run is told to "
            "have several processes."
        ) from None


def _has_tpu() -> bool:
    return importlib.util.find_spec("libtpu") is not None and bool(
        glob.glob("/dev/accel*") or glob.glob("/dev/vfio/[0-9]*")
    )
