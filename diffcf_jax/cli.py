"""How the entry points start and fail: one sentence and an exit status, never a traceback."""

import re
import sys
from collections.abc import Callable

from absl import app, flags, logging

from diffcf_jax.errors import UserError


def run(main: Callable[[list[str]], None]) -> None:
    """Parses the flags and runs `main`.

    Wrong flags, unknown config keys and every `UserError` are told as `error: ...` on stderr with
    exit status 2.
    """
    logging.set_verbosity(logging.WARNING)  # Orbax tells every step of a save

    def guarded(argv: list[str]) -> None:
        try:
            main(argv)
        except UserError as error:
            _fail(error)

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
        _fail(f"The config has no such key: {what}")
    except (flags.Error, TypeError, ValueError, OSError, ImportError) as error:
        _fail(error)


def _fail(error: Exception | str) -> None:
    message = " ".join(line.strip() for line in str(error).splitlines())
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)
