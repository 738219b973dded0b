"""How the entry points start and fail: one sentence and an exit status, never a traceback."""

import ctypes
import re
import sys
from collections.abc import Callable

from absl import app, flags, logging

from diffcf_jax.cache import keep_compiled_programs
from diffcf_jax.errors import Preempted, UserError

_RUN_AGAIN = 75  # EX_TEMPFAIL

# Parameters of glibc's mallopt(3).
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8


def run(main: Callable[[list[str]], None]) -> None:
    """Parses the flags and runs `main`.

    Wrong flags, unknown config keys, every `UserError` and files that fail are told as `error: ...`
    on stderr with exit status 2. A run that ends before its work is done exits with status 75: the
    same command continues it.
    """
    logging.set_verbosity(logging.WARNING)  # Orbax tells every step of a save

    def guarded(argv: list[str]) -> None:
        try:
            keep_compiled_programs()
            main(argv)
        except UserError as error:
            _fail(error)
        except OSError as error:  # a full disk, a folder that vanished
            _fail(f"{error}. What is saved stays: put that right and run the same command again.")
        except Preempted as error:
            print(error, file=sys.stderr)
            sys.exit(_RUN_AGAIN)

    app.run(guarded, flags_parser=_parse_flags)


def _parse_flags(argv: list[str]) -> list[str]:
    try:
        rest = flags.FLAGS(argv)
        if "config" in flags.FLAGS:
            flags.FLAGS.config.to_dict()  # a config file that did not load fails at its first use
        return rest
    except (AttributeError, KeyError) as error:
        # An error in an error: quoted, with escaped line ends.
        what = re.sub(r"[\\'\"]+", "'", str(error.args[0]).replace("\\n", " ")).strip("' ")
        what = re.sub(r"^(\S+)' Did", r"\1. Did", what)
        _fail(f"The config has no such key: {what}")
    except (flags.Error, TypeError, ValueError, OSError, ImportError) as error:
        # What a config file raises is told as a traceback, of which the end says what is wrong.
        _fail(re.sub(r"Error whilst parsing.*^\w+Error: ", "", str(error), flags=re.S | re.M))


def keep_memory() -> None:
    """Has the process keep the memory that it frees, for its next use of it (glibc only).

    XLA allocates the temporaries of a program anew at each call. By default glibc maps large
    blocks and gives them back to the system, which then clears every page of them again: a fifth
    of the CPU time of a small network's update. One heap that never shrinks has its pages ready.
    It can also grow to twice what a large program needs, whose blocks come and go in changing
    order.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, -1)
        mallopt(_ARENA_MAX, 1)


def _fail(error: Exception | str) -> None:
    lines = str(error).splitlines()
    # Ours are one sentence, or a list that is laid out; foreign ones wrap where they like.
    message = "\n".join(lines) if isinstance(error, UserError) else " ".join(map(str.strip, lines))
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)
