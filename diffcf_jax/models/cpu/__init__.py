"""Other forms of what XLA's CPU compiler is slow at, with the same values and gradients.

`in_use` is the one switch in front of it. It is asked while a program is traced, so that the
programs of other platforms contain none of this.
"""

import contextlib
import contextvars
from collections.abc import Iterator

import jax

_platform: contextvars.ContextVar[str | None] = contextvars.ContextVar("platform", default=None)


def in_use() -> bool:
    """Whether the program that is being traced is for a CPU."""
    return (_platform.get() or jax.default_backend()) == "cpu"


@contextlib.contextmanager
def tracing_for(platform: str) -> Iterator[None]:
    """Traces for another platform than the default one, for ahead-of-time compilation.

    Args:
        platform: "cpu", "gpu" or "tpu".
    """
    token = _platform.set(platform)
    try:
        yield
    finally:
        _platform.reset(token)
