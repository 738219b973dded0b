"""A workdir belongs to one config and, at a time, to one run: what results and trainings share."""

import contextlib
import errno
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import filelock

from diffcf_jax.errors import UserError
from diffcf_jax.files import cannot_write, inside, make_folder, write_file
from diffcf_jax.jsonfile import read_json, strict_json

CONFIG = "config.json"

_NO_LOCKS = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL}


@contextlib.contextmanager
def locked(workdir: Path) -> Iterator[None]:
    """Keeps a second run out of a folder; the lock ends with the process, however it ends.

    On a file system without locks nothing is kept out.

    Raises:
        UserError: another run works in the folder, or it cannot be written.
    """
    make_folder(workdir)
    path = workdir / ".lock"
    inside(workdir, path.name)  # a link would have another file locked
    lock = filelock.FileLock(path, timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise UserError(
            f"Another run works in {workdir}: wait for its end, or give another --workdir."
        ) from None
    except NotImplementedError:
        pass
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise cannot_write(path, error) from error
    try:
        yield
    finally:
        lock.release()


def read_config(workdir: Path, remedy: str = "give another --workdir") -> dict[str, Any] | None:
    """The config that a folder belongs to; None if it holds none.

    Raises:
        UserError: config.json cannot be read, or is not a JSON object.
    """
    path = workdir / CONFIG
    return read_json(path, remedy) if path.exists() or path.is_symlink() else None


def write_config(workdir: Path, config: Mapping[str, Any]) -> None:
    """Writes config.json.

    Raises:
        UserError: the folder cannot be written.
    """
    write_file(workdir / CONFIG, (strict_json(config, indent=2) + "\n").encode())


def differences(
    before: Mapping[str, Any], now: Mapping[str, Any], may_change: Sequence[str]
) -> str:
    """The keys that two configs differ in, with both values; empty where there are none.

    Args:
        before: as it was read from config.json.
        now: as it would be written there.
        may_change: keys that do not count, such as "data.limit"; "data" stands for all below it.
    """
    there, here = flat(before), flat(json.loads(strict_json(now)))
    return "; ".join(
        f"{key} ({_shown(there.get(key))} there, {_shown(here.get(key))} here)"
        for key in sorted(there.keys() | here.keys())
        if there.get(key) != here.get(key)
        and not any(key == free or key.startswith(f"{free}.") for free in may_change)
    )


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested config with keys such as "data.limit"."""
    items: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            items |= flat(value, f"{prefix}{key}.")
        else:
            items[f"{prefix}{key}"] = value
    return items


def _shown(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 100 else f"{text[:100]}..."
