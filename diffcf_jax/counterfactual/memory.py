"""Memory: what a program needs, what a device has left, and how running out shows."""

import contextlib
import ctypes
from collections.abc import Iterator
from pathlib import Path

import jax

from diffcf_jax.errors import UserError


def memory_bytes(program: jax.stages.Compiled) -> int:
    """Return the memory in bytes that a program needs per device while it runs."""
    analysis = program.memory_analysis()
    return (
        analysis.argument_size_in_bytes
        + analysis.output_size_in_bytes
        - analysis.alias_size_in_bytes
        + analysis.temp_size_in_bytes
    )


def free_bytes(device: jax.Device) -> float:
    """Return the free memory of a device in bytes; the devices of one CPU share its memory.

    Raises:
        UserError: the device does not report its memory.
    """
    if device.platform == "cpu":
        return _free_host_bytes() / jax.local_device_count()
    statistics = device.memory_stats() or {}
    if "bytes_limit" not in statistics:
        raise UserError("This device does not report its memory: give batch_size a number.")
    return statistics["bytes_limit"] - statistics["bytes_in_use"]


def return_freed_memory() -> None:
    """Return freed memory to the system, where the C library can; glibc would keep it.

    On a CPU, with the paper's networks, compilation leaves two thirds of a GiB, and the start of an
    image a quarter.
    """
    with contextlib.suppress(OSError, TypeError, AttributeError):  # Windows, macOS, musl
        ctypes.CDLL(None).malloc_trim(0)


def out_of_memory(error: Exception) -> bool:
    """Return whether a device, or the compiler for it, ran out of memory."""
    return "RESOURCE_EXHAUSTED" in str(error) or "out of memory" in str(error).lower()


def _free_host_bytes() -> float:
    """What the machine and the control groups of this process leave free."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAv"))
    except (OSError, StopIteration):
        raise UserError(
            "This machine does not report its free memory: give batch_size a number."
        ) from None
    return min([free, *_free_in_groups()])


def _free_in_groups(
    groups: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")
) -> Iterator[float]:
    """Yield what each control group that limits this process leaves free (SLURM, containers).

    Args:
        groups: lists the group of each hierarchy; its limits and those of its parents count.
        root: where hierarchies are mounted, that of version 2 or one folder for each of version 1.
    """
    try:
        lines = [line.split(":", 2) for line in groups.read_text().splitlines()]
    except OSError:  # no Linux
        return
    for _, controllers, group in lines:
        if controllers == "":
            top, names = root, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            top = root / "memory"
            names = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
        else:
            continue
        here = top / group.strip("/")
        for folder in (here, *here.parents):
            with contextlib.suppress(OSError, ValueError, KeyError):  # no limit
                most, used = (int((folder / name).read_text()) for name in names[:2])
                statistics = (folder / "memory.stat").read_text().splitlines()
                # The system gives files' pages up where memory is asked for.
                cached = int(dict(line.split() for line in statistics)[names[2]])
                yield most - used + cached
            if folder == top:
                break
