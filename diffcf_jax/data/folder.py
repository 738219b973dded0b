"""A user's own images: a folder, with an optional data.csv of targets."""

import os
import pathlib

import numpy as np
from PIL import ExifTags, Image, ImageOps

from diffcf_jax.data.record import Record
from diffcf_jax.data.table import read_table
from diffcf_jax.errors import UserError

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
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


def load_image(path: str | os.PathLike, image_size: int, convert: bool = False) -> np.ndarray:
    """Reads one image as 8-bit RGB of `image_size` x `image_size` pixels.

    Without `convert` the file must hold exactly that: an explanation should be of the image that
    the user has, not of one that was changed on the way. With `convert` the first frame is taken
    and turned as its EXIF data says; 16-bit grey is scaled by 1/257, and of 16-bit colour the high
    byte is kept; transparency is laid on white; grey, palette and CMYK become RGB; the largest
    square in the centre is cut out and resized (bilinear, antialiased).

    Args:
        path: the image file.
        image_size: width and height, in pixels.
        convert: convert instead of raising.

    Returns:
        uint8 [image_size, image_size, 3].

    Raises:
        UserError: the file is missing or unreadable, has values without a known range (32-bit),
            or, without `convert`, is not 8-bit RGB of that size, is animated or EXIF-rotated.
    """
    if not os.path.isfile(path):
        raise UserError(f"{path} is not there or is no file: check the name")
    try:
        with Image.open(path) as image:
            range_known = image.mode not in ("I", "F")
            oddities = [] if convert else _oddities(image, image_size)
            image.load()
            if range_known and not oddities:
                return to_square_rgb(image, image_size)
    # Pillow's decoders raise nearly anything on damaged data (OSError, SyntaxError, ValueError,
    # struct.error, IndexError, DecompressionBombError, ...).
    except Exception as error:
        raise UserError(
            f"{path} cannot be read as an image ({_reason(error)}): replace or remove the file"
        ) from error
    if not range_known:
        raise UserError(f"{path} has 32-bit values of unknown range: save it as 8-bit RGB")
    raise UserError(
        f"{path} is not one 8-bit RGB image of {image_size}x{image_size} pixels "
        f"({', '.join(oddities)}): pass --config.data.convert=true to have it converted"
    )


def read_targets(path: str | os.PathLike, names: set[str]) -> dict[str, tuple[float, float | None]]:
    """Reads a table of targets: comma-separated, UTF-8, header `name,target[,y_true]`.

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
    """Refuses to write into a folder of images, where the next run would find what this one wrote.

    Raises:
        UserError: the workdir lies in the folder.
    """
    if workdir.resolve().is_relative_to(folder.resolve()):
        raise UserError(
            f"{workdir} lies in config.data.path, whose images the next run would take: give a "
            "--workdir outside of it."
        )


def list_images(folder: pathlib.Path) -> list[str]:
    """Sorted posix names of the images in a folder and in the folders below it.

    Files count by their suffix (`SUFFIXES`, in any case); hidden files and folders do not.

    Raises:
        UserError: no such folder, no image in it, a name that is not UTF-8.
    """
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "does not exist"
        raise UserError(f"{folder} {what}: set --config.data.path to a folder of images")

    def unreadable(error: OSError):
        raise UserError(
            f"{error.filename} cannot be listed ({error.strerror}): check its permissions"
        ) from error

    names = []
    for directory, subdirectories, files in os.walk(folder, onerror=unreadable):
        subdirectories[:] = [name for name in subdirectories if not name.startswith(".")]
        names += [
            (pathlib.Path(directory) / name).relative_to(folder).as_posix()
            for name in files
            if not name.startswith(".") and name.lower().endswith(SUFFIXES)
        ]
    if not names:
        raise UserError(
            f"{folder} holds no image ({', '.join(SUFFIXES)}): set --config.data.path to a folder "
            "of images"
        )
    for name in names:
        if not _is_unicode(name):
            raise UserError(f"{folder} has a file name that is not UTF-8, {ascii(name)}: rename it")
    return sorted(names)


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


def _oddities(image: Image.Image, image_size: int) -> list[str]:
    """What keeps an opened, not yet decoded image from being taken as it is, in words."""
    oddities = []
    if getattr(image, "is_animated", False):
        oddities.append("animated or of several pages")
    # Pillow shows 16-bit colour as 8-bit; only the decoder's raw mode tells.
    raw_modes = str([arguments for _, _, _, arguments in image.tile])
    if image.mode.startswith("I;16") or ";16" in raw_modes:
        oddities.append("16-bit")
    if image.mode in ("1", "L", "LA", "La") or image.mode.startswith("I"):
        oddities.append("grey")
    elif image.mode in ("P", "PA"):
        oddities.append("with a palette")
    elif image.mode not in ("RGB", "RGBA"):
        oddities.append(image.mode)
    if image.has_transparency_data:
        oddities.append("with transparency")
    if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
        oddities.append("rotated by its EXIF data")
    if image.size != (image_size, image_size):
        oddities.append(f"{image.width}x{image.height} pixels")
    return oddities


def to_square_rgb(image: Image.Image, image_size: int) -> np.ndarray:
    """Converts an image as `load_image` does: uint8 [image_size, image_size, 3]."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        # Pillow's own conversion would clip at 255 instead of scaling.
        image = Image.fromarray(np.round(np.asarray(image) / 257).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert("RGB")
    if image.size != (image_size, image_size):
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        image = image.crop((left, top, left + side, top + side))
        image = image.resize((image_size, image_size), Image.Resampling.BILINEAR)
    return np.array(image)


def _reason(error: Exception) -> str:
    # Pillow's messages repeat the path.
    if isinstance(error, Image.UnidentifiedImageError):
        return "unknown or damaged format"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__
