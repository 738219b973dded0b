"""A user's own images: a folder, with an optional data.csv of targets."""

import os
import pathlib
import posixpath
from collections.abc import Iterator

from diffcf_jax.data.image import load_image
from diffcf_jax.data.record import Record
from diffcf_jax.data.table import read_table
from diffcf_jax.errors import UserError

SUFFIXES = (".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
TABLE = "data.csv"


class ImageFolder:
    """The images in a folder and in the folders below it, sorted by name.

    Files count by their suffix (`SUFFIXES`, in any case); hidden files and folders do not. A
    `data.csv` in the folder gives targets (see `read_targets`); images that it does not name have
    none. Images are read only when they are asked for, so a bad one spoils nothing but itself.

    Results are saved as PNG under the input's name, so two names that differ only in the suffix
    (`a.jpg`, `a.png`) are refused here, before anything is computed.

    Args:
        path: the folder; "~" is the home directory.
        image_size: width and height that the networks expect, in pixels.
        convert: bring images of another kind or size to that form (see `load_image`).
        limit: keep only the first `limit` images. None: all of them.

    Raises:
        UserError: no such folder, no image in it, two images whose results would overwrite each
            other, a name that is not UTF-8, a bad data.csv; on access, a bad image.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        image_size: int,
        convert: bool = False,
        limit: int | None = None,
    ):
        self.path = pathlib.Path(path).expanduser()
        self.image_size = image_size
        self.convert = convert
        names = list_images(self.path)
        _refuse_equal_stems(self.path, names)
        table = self.path / TABLE
        self._targets = read_targets(table, set(names)) if os.path.lexists(table) else {}
        self.names = names[:limit]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, i: int) -> Record:
        i = range(len(self))[i]
        name = self.names[i]
        image = load_image(self.path / name, self.image_size, self.convert)
        _, y = self._targets.get(name, (None, None))
        return Record(id=i, name=name, image=image, y=y, target=self.target(i))

    def target(self, i: int) -> float | None:
        """The target of an image in data.csv, if it has one."""
        return self._targets.get(self.names[i], (None, None))[0]


def read_targets(path: str | os.PathLike, names: set[str]) -> dict[str, tuple[float, float | None]]:
    """Read a table of targets: comma-separated, UTF-8, header `name,target[,y_true]`.

    Columns may come in any order; `y_true` may be left empty.

    Args:
        path: the table.
        names: the images that there are; the table may name no other.

    Returns:
        (target, true value or None) by name, in the label's unit.

    Raises:
        UserError: whatever is wrong with the table, with its line and column.
    """
    return read_table(path, names, ["target"], optional=["y_true"])


def refuse_inside(folder: pathlib.Path, workdir: pathlib.Path) -> None:
    """Refuse to write into a folder of images, where the next run would find what this one wrote.

    Raises:
        UserError: the workdir lies in the folder, or in one that it links to.
    """
    workdir, folder = workdir.resolve(), folder.resolve()
    holding = {folder, *(real for _, real, _ in _walk(folder))} if folder.is_dir() else {folder}
    if not holding.isdisjoint((workdir, *workdir.parents)):
        raise UserError(
            f"{workdir} lies in config.data.path, whose images the next run would take: give a "
            "--workdir outside of it."
        )


def list_images(folder: pathlib.Path, key: str = "config.data.path") -> list[str]:
    """Return the sorted posix names of the images in a folder and in the folders below it.

    Files count by their suffix (`SUFFIXES`, in any case); hidden files and folders do not. Links to
    files and folders are followed, except to a folder that holds the link itself.

    Args:
        folder: to look into.
        key: of the config that named it, for the message.

    Raises:
        UserError: no such folder, no image in it, a name that is not UTF-8.
    """
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "does not exist"
        raise UserError(f"{folder} {what}: set --{key} to a folder of images")
    names = [
        posixpath.join(prefix, name)
        for prefix, _, files in _walk(folder)
        for name in files
        if name.lower().endswith(SUFFIXES)
    ]
    if not names:
        raise UserError(
            f"{folder} holds no image ({', '.join(SUFFIXES)}): set --{key} to a folder of images"
        )
    for name in names:
        if not _is_unicode(name):
            raise UserError(f"{folder} has a file name that is not UTF-8, {ascii(name)}: rename it")
    return sorted(names)


def _walk(folder: pathlib.Path) -> Iterator[tuple[str, pathlib.Path, list[str]]]:
    """Yield a folder and those below it: posix name, real path, names of files; nothing hidden.

    Raises:
        UserError: a folder cannot be listed.
    """
    pending: list[tuple[str, frozenset[pathlib.Path]]] = [("", frozenset())]
    while pending:
        prefix, above = pending.pop()  # and the real paths of the folders that led there
        here, real = folder / prefix, pathlib.Path(os.path.realpath(folder / prefix))
        if real in above:
            continue
        files, folders = [], []
        try:
            with os.scandir(here) as entries:
                for entry in entries:
                    if not entry.name.startswith("."):
                        (folders if _is_folder(entry) else files).append(entry.name)
        except OSError as error:
            raise UserError(
                f"{here} cannot be listed ({error.strerror}): check its permissions"
            ) from error
        yield prefix, real, files
        pending += [(posixpath.join(prefix, name), above | {real}) for name in folders]


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads nowhere: to be named when it is read
        return False


def _refuse_equal_stems(folder: pathlib.Path, names: list[str]) -> None:
    by_stem: dict[str, str] = {}
    for name in names:
        other = by_stem.setdefault(os.path.splitext(name)[0], name)
        if other != name:
            raise UserError(
                f"{folder} has {other} and {name}, whose results would both be saved as "
                f"{os.path.splitext(name)[0]}.png: rename one of them"
            )


def _is_unicode(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:  # bytes that Python smuggles through as surrogates
        return False
    return True
