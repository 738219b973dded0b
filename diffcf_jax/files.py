"""Files of a folder that belongs to a run: written whole or not at all, read with care.

What is read may have been edited, torn or made by somebody else, so that reading is bounded and a
path that a file names stays inside the file's folder.
"""

import contextlib
import errno
import hashlib
import io
import os
import stat
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from diffcf_jax.errors import UserError
from diffcf_jax.shipped import command

MOST_BYTES = 64 << 20  # of a file that is read as text

_PNG_START = b"\x89PNG\r\n\x1a\n"

_REMEDIES = {
    **dict.fromkeys(
        (errno.ENOSPC, errno.EDQUOT, errno.EFBIG),
        "free some space or choose another folder (what is finished stays)",
    ),
    **dict.fromkeys(
        (errno.EACCES, errno.EPERM, errno.EROFS), "choose a folder that you may write to"
    ),
    **dict.fromkeys(
        (errno.EEXIST, errno.ENOTDIR, errno.EISDIR),
        "something else has that name; remove it or choose another folder",
    ),
    **dict.fromkeys((errno.ENOENT, errno.ESTALE), "check that the folder still exists"),
    errno.ELOOP: "remove the link or choose another folder",
    errno.ENAMETOOLONG: "choose a folder with a shorter path",
}


def write_file(path: Path, data: bytes, owner: str = "") -> None:
    """Writes a file such that it is complete or not there at all, even after a crash.

    Args:
        path: of the file; its folder is made where it is missing.
        data: its content.
        owner: keeps writers of one path apart who may write at the same time.

    Raises:
        UserError: the folder cannot be written or the disk is full.
    """
    make_folder(path.parent)
    # Short, for names at the file system's limit, and always the same, so that a rerun replaces
    # what a crash left.
    digest = hashlib.blake2b(os.fsencode(f"{path.name}/{owner}"), digest_size=8).hexdigest()
    temporary = path.with_name(f".{digest}.tmp")
    try:
        temporary.unlink(missing_ok=True)
        with open(temporary, "xb") as file:  # never through a link
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
        with contextlib.suppress(OSError):  # the first error says what is wrong
            temporary.unlink(missing_ok=True)
        raise cannot_write(path, error) from error


def check_regular_file(path: str | os.PathLike) -> None:
    """Refuses what is no regular file, for readers that open the file themselves.

    Raises:
        UserError: it is missing, or is a folder, a pipe or a device.
    """
    try:
        if stat.S_ISREG(os.stat(path).st_mode):
            return
        reason = "it is not a regular file"
    except (OSError, ValueError) as error:  # a NUL in the name is a ValueError
        reason = getattr(error, "strerror", None) or str(error)
    raise UserError(f"cannot read {path}: {reason}; check the name and the permissions")


def make_folder(path: Path) -> None:
    """Makes a folder and its parents.

    Raises:
        UserError: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:  # a NUL in the name is a ValueError
        raise cannot_write(path, error) from error


def cannot_write(path: Path, error: OSError | ValueError) -> UserError:
    """The error for a file that cannot be written, with its cause and the remedy that fits it."""
    for place in (path, *path.parents):
        if os.path.islink(place) and not os.path.exists(place):
            return UserError(
                f"cannot write {path}: {place} is a link to {os.readlink(place)}, which does not "
                "exist; make that folder or choose another one"
            )
    code, reason = getattr(error, "errno", None), getattr(error, "strerror", None) or error
    remedy = _REMEDIES.get(code, "check the disk or choose another folder")
    return UserError(f"cannot write {path}: {reason}; {remedy}")


def inside(folder: Path, name: str) -> Path:
    """The path of a file that something in `folder` names, with symbolic links resolved.

    Raises:
        UserError: the path leads out of the folder, or is none.
    """
    try:
        root = os.path.realpath(folder)
        path = os.path.realpath(os.path.join(root, name))
        if path.startswith(os.path.join(root, "")) and path != root:
            return Path(path)
    except (OSError, ValueError):  # such as a NUL in the name
        pass
    raise UserError(f"{short(name)} leads out of {folder}: results name files inside it only")


def read_bytes(path: Path, limit: int | None = MOST_BYTES, remedy: str = "check the file") -> bytes:
    """The content of a regular file; pipes and devices, which may never end, are refused.

    Args:
        path: of the file; links are followed.
        limit: largest size in bytes; None: any.
        remedy: what the error advises.

    Raises:
        UserError: the file is missing, too large, cannot be read or is no regular file.
    """
    try:
        # Not to wait for the other end of a pipe.
        file = os.open(
            path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        )
        with open(file, "rb") as stream:
            status = os.fstat(file)
            if not stat.S_ISREG(status.st_mode):
                reason = "it is not a regular file"
            elif limit is not None and status.st_size > limit:
                reason = f"it has more than {limit >> 20} MB"
            else:
                return stream.read()
    except (OSError, ValueError) as error:  # a NUL in the name is a ValueError
        reason = getattr(error, "strerror", None) or str(error)
    raise UserError(f"cannot read {path}: {reason}; {remedy}")


def read_text(path: Path, limit: int | None = MOST_BYTES, remedy: str = "check the file") -> str:
    """The text of a regular file in UTF-8, see `read_bytes`.

    Raises:
        UserError: see `read_bytes`; also if it is not UTF-8.
    """
    try:
        return read_bytes(path, limit, remedy).decode("utf-8")
    except UnicodeDecodeError as error:
        message = f"cannot read {path}: it is not UTF-8 at byte {error.start}; {remedy}"
        raise UserError(message) from None


def short(value: Any) -> str:
    """A value of somebody's file for a message."""
    text = ascii(value)
    return text if len(text) <= 100 else f"{text[:100]}..."


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
    """Whether a PNG file is undamaged: each chunk has its checksum, and nothing follows the last.

    Its pixels are not decoded.
    """
    try:
        data = read_bytes(path)
    except UserError:
        return False
    if not data.startswith(_PNG_START):
        return False
    view, start, kind = memoryview(data), len(_PNG_START), b""
    while kind != b"IEND" and start + 12 <= len(data):
        end = start + 8 + int.from_bytes(view[start : start + 4], "big")
        kind = data[start + 4 : start + 8]
        if zlib.crc32(view[start + 4 : end]) != int.from_bytes(view[end : end + 4], "big"):
            return False
        start = end + 4
    return kind == b"IEND" and start == len(data)


def encode_npy(array: np.ndarray) -> bytes:
    """The bytes of a NumPy file of an array."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def read_npy(path: Path) -> np.ndarray:
    """Reads a NumPy file of numbers; nothing in it is executed.

    Raises:
        UserError: it is missing or broken.
    """
    remedy = f"run {command('explain')} again with the same --workdir"
    data = read_bytes(path, remedy=remedy)
    try:
        return np.load(io.BytesIO(data), allow_pickle=False)
    except (OSError, ValueError, EOFError, SyntaxError):
        raise UserError(
            f"cannot read {path}: it is not a NumPy file of numbers; {remedy}"
        ) from None


def read_image(path: Path) -> np.ndarray:
    """Reads a saved PNG as it is, uint8 [H, W, 3], or [H, W] for a mask.

    Raises:
        UserError: it is missing or broken.
    """
    remedy = f"run {command('explain')} again with the same --workdir"
    data = read_bytes(path, remedy=remedy)
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            return np.asarray(image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        raise UserError(f"cannot read {path}: it is not a readable image; {remedy}") from None
