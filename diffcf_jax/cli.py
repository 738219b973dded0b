"""How the entry points start and fail: one sentence and an exit status, never a traceback."""

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
        return flags.FLAGS(argv)
    # What ml_collections raises for an unknown key, a value of another type, or a config file
    # that is missing or broken.
    except (
        flags.Error,
        AttributeError,
        KeyError,
        TypeError,
        ValueError,
        OSError,
        ImportError,
    ) as e:
        _fail(e)


def _fail(error: Exception) -> None:
    message = " ".join(str(error).strip().splitlines()).strip("'\"")
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)
