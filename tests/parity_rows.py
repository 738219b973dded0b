"""The recorded vectors of the originals under tests/golden, each folder compared once."""

import functools
from pathlib import Path

import jax

from eval.parity.__main__ import compare_folder

GOLDEN = Path(__file__).parent / "golden"


@functools.cache
def parity_rows(folder, x64):
    with jax.enable_x64(x64):
        return compare_folder(GOLDEN / folder, x64)


def assert_parity(folder, prefixes=("",), x64=True, at_least=1):
    """Asserts that the quantities whose names start so were compared, and that all passed."""
    rows = [row for row in parity_rows(folder, x64) if row.name.startswith(tuple(prefixes))]
    assert len(rows) >= at_least
    failed = [row for row in rows if not row.passed]
    assert not failed, failed
