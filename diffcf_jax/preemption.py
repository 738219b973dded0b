"""A request to stop lets the work in hand end, and what is finished is kept."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from diffcf_jax.errors import Preempted


@contextlib.contextmanager
def termination() -> Iterator[Callable[[], None]]:
    """Notes SIGTERM and SIGINT, so that the iteration in hand ends; a second one acts as usual.

    Gives a function that raises `Preempted` once a signal has come.
    """
    noted = threading.Event()
    before: dict[int, Any] = {}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def note(number: int, frame: FrameType | None) -> None:
        noted.set()
        restore()

    def check() -> None:
        if noted.is_set():
            raise Preempted(
                "Stopped before the end, and what is finished is saved: run the same command again."
            )

    if threading.current_thread() is threading.main_thread():  # no other may set handlers
        for number in (signal.SIGTERM, signal.SIGINT):
            before[number] = signal.signal(number, note)
    try:
        yield check
    finally:
        restore()
