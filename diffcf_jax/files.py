"""Files of a results folder: written whole or not at all, images as PNG, strict JSON."""

import io
import json
import math
import os
import stat
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from diffcf_jax.errors import UserError
from diffcf_jax.shipped import command

_PNG_START = b"\x89PNG\r\n\x1a\n"
_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"


def write_file(path: Path, data: bytes, temporary_name: str | None = None) -> None:
    """Writes a file such that it is complete or not there at all, even after a crash.

    Raises:
        UserError: the folder cannot be written or the disk is full.
    """
    make_folder(path.parent)
    temporary = path.with_name(temporary_name or f".{path.name}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        if os.name == "posix":  # elsewhere a folder cannot be opened
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise cannot_write(path, error) from error


def check_regular_file(path: str | os.PathLike, most_bytes: int | None = None) -> None:
    """Refuses what is no regular file, such as a pipe or a device, whose reading might never end.

    Args:
        path: the file; links are followed.
        most_bytes: the largest size that is read. None: any.

    Raises:
        UserError: it is missing, is no regular file or is too large.
    """
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:  # a NUL in the name is a ValueError
        reason = getattr(error, "strerror", None) or error
    else:
        if stat.S_ISREG(status.st_mode) and (most_bytes is None or status.st_size <= most_bytes):
            return
        reason = "it is not a regular file"
        if stat.S_ISREG(status.st_mode):
            reason = f"it has more than {most_bytes >> 20} MB"
    raise UserError(f"{path} cannot be read ({reason}): check its name and its permissions")


def make_folder(path: Path) -> None:
    """Makes a folder and its parents.

    Raises:
        UserError: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(path, error) from error


def cannot_write(path: Path, error: OSError) -> UserError:
    """The error for a file that cannot be written, with its cause and the remedy."""
    return UserError(
        f"cannot write {path}: {error.strerror}; free some space or choose another --workdir"
        " (what is finished stays)"
    )


def to_uint8(image: np.ndarray, what: str) -> np.ndarray:
    """Rounds an image in [0, 1] to 8 bits: floor(255 x + 1/2), clipped to [0, 255].

    Raises:
        UserError: a value is NaN or infinite; `what` names the image.
    """
    image = np.asarray(image, np.float32)
    if not np.isfinite(image).all():
        raise UserError(f"{what} holds values that are not finite: check the networks")
    return np.clip(np.floor(image * 255 + 0.5), 0, 255).astype(np.uint8)


def encode_png(image: np.ndarray) -> bytes:
    """The bytes of a PNG file of a uint8 image [H, W, 3] or [H, W]."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def is_whole_png(path: Path) -> bool:
    """Whether a PNG file is there from its first to its last bytes; its pixels are not decoded."""
    try:
        with open(path, "rb") as file:
            start = file.read(len(_PNG_START))
            file.seek(-len(_PNG_END), os.SEEK_END)
            return start == _PNG_START and file.read() == _PNG_END
    except OSError:
        return False


def read_image(path: Path) -> np.ndarray:
    """Reads a saved PNG as it is, uint8 [H, W, 3], or [H, W] for a mask.

    Raises:
        UserError: it is missing or broken.
    """
    try:
        with Image.open(path) as image:
            return np.asarray(image)
    except OSError as error:
        reason = error.strerror or "it is not a readable image"
        raise UserError(
            f"cannot read {path}: {reason}; run {command('explain')} again with the same --workdir"
        ) from error


def strict_json(value: Any, indent: int | None = None) -> str:
    """JSON that every parser reads: NaN and infinities become null, tuples lists, paths text."""
    return json.dumps(_plain(value), indent=indent, allow_nan=False, ensure_ascii=False)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | np.ndarray):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    return str(value)
