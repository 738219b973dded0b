"""One image file of a user: read as it is, converted to square 8-bit sRGB, or refused."""

import functools
import io
import os

import numpy as np
from PIL import ExifTags, Image, ImageCms, ImageOps, PngImagePlugin

from diffcf_jax.data import tiff
from diffcf_jax.errors import UserError

# Pillow allows 1 MB per text and 64 MB for all texts of a PNG; editing programs write one long one.
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY


def load_image(path: str | os.PathLike, image_size: int, convert: bool = False) -> np.ndarray:
    """Read one image as 8-bit sRGB of `image_size` x `image_size` pixels.

    Without `convert` the file must hold exactly that: an explanation should be of the image that
    the user has, not of one that was changed on the way. With `convert`

    - the first frame is taken and turned as its EXIF data says;
    - 16-bit grey is scaled by 1/257, 12-bit grey by 255/4095; of 16-bit colour the high byte is
      kept;
    - colours are converted by the embedded profile to sRGB (relative colorimetric, with black point
      compensation); an image without a profile is taken as sRGB, and so is one whose profile is
      broken or belongs to another kind of image. The gAMA and cHRM chunks of a PNG are ignored;
    - transparency is laid on white;
    - the largest square in the centre is cut out and resized (bilinear, antialiased).

    Args:
        path: the image file.
        image_size: width and height, in pixels.
        convert: convert instead of raising.

    Returns:
        uint8 [image_size, image_size, 3].

    Raises:
        UserError: the file is missing or unreadable, has values without a known range (32-bit,
            signed or floating-point) or a layout that is not supported, or, without `convert`, is
            not 8-bit sRGB of that size, is animated or EXIF-rotated.
    """
    if not os.path.isfile(path):
        raise UserError(f"{path} does not exist or is not a regular file: check the name")
    problem, oddities = None, []
    try:
        with Image.open(path) as image:
            problem = _unreadable(image)
            oddities = [] if convert or problem else _oddities(image, image_size)
            _scale_transparency(image)
            image.load()
            if not problem and not oddities:
                return to_square_rgb(_to_eight_bits(image), image_size)
    # Pillow's decoders raise nearly anything on damaged data (OSError, SyntaxError, ValueError,
    # struct.error, IndexError, DecompressionBombError, ...).
    except Exception as error:
        problem = problem or _unknown_tiff(path, error)
        if not problem:
            raise UserError(
                f"{path} cannot be read as an image ({_reason(error)}): replace or remove the file"
            ) from error
    if problem:
        raise UserError(f"{path} holds {problem}: save it as 8-bit RGB")
    raise UserError(
        f"{path} is not one 8-bit RGB image of {image_size}x{image_size} pixels "
        f"({', '.join(oddities)}): pass --config.data.convert=true to have it converted"
    )


def shown_size(path: str | os.PathLike) -> tuple[int, int]:
    """Return width and height of an image file, turned as its EXIF data says.

    Raises:
        UserError: the file is missing or unreadable.
    """
    if not os.path.isfile(path):
        raise UserError(f"{path} does not exist or is not a regular file: check the name")
    try:
        with Image.open(path) as image:
            turned = image.getexif().get(ExifTags.Base.Orientation) in range(5, 9)
            return image.size[::-1] if turned else image.size
    except Exception as error:  # see `load_image`
        raise UserError(
            f"{path} cannot be read as an image ({_reason(error)}): replace or remove the file"
        ) from error


def to_square_rgb(image: Image.Image, image_size: int) -> np.ndarray:
    """Convert an image as `load_image` does: uint8 [image_size, image_size, 3]."""
    image = to_srgb(ImageOps.exif_transpose(image))
    if image.size != (image_size, image_size):
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        image = image.crop((left, top, left + side, top + side))
        image = image.resize((image_size, image_size), Image.Resampling.BILINEAR)
    return np.array(image)


def to_srgb(image: Image.Image) -> Image.Image:
    """Convert an image of at most 8 bits to RGB in sRGB, transparency laid on white."""
    if image.mode in ("La", "RGBa"):
        image = image.convert(image.mode.upper())
    alpha = image.convert("RGBA").getchannel("A") if image.has_transparency_data else None
    transform = _srgb_transform(image)
    if transform is not None:
        image = ImageCms.applyTransform(_colours(image, transform.input_mode), transform)
    image = _colours(image, "RGB")
    if alpha is not None:
        image = Image.composite(image, Image.new("RGB", image.size, "white"), alpha)
    return image


def _colours(image: Image.Image, mode: str) -> Image.Image:
    """Convert an image to a mode without transparency."""
    if image.mode == "P":  # whose transparency would be lost with a warning
        image = image.convert("RGBA")
    return image if image.mode == mode else image.convert(mode)


def _srgb_transform(image: Image.Image) -> ImageCms.ImageCmsTransform | None:
    """Make the transform of an image's colours to sRGB, None if they are taken as they are."""
    profile = image.info.get("icc_profile")
    if not profile:
        return None
    if image.mode in ("CMYK", "LAB"):
        return _transform(profile, image.mode)
    if image.mode in ("1", "L", "LA", "La") or image.mode.startswith("I;16"):
        # Grey images often carry the profile of the colours that they were made from.
        return _transform(profile, "L") or _transform(profile, "RGB")
    return _transform(profile, "RGB")


@functools.lru_cache(maxsize=16)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Make the transform of a profile; None if it is broken, does not fit, or changes nothing."""
    try:
        transform = ImageCms.buildTransform(
            ImageCms.ImageCmsProfile(io.BytesIO(profile)),
            ImageCms.createProfile("sRGB"),
            mode,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None
    # Profiles of sRGB differ in rounding: their images keep the values that they have.
    steps = np.arange(0, 256, 15, dtype=np.uint8)
    if mode == "L":
        probe = Image.fromarray(steps[None])
    elif mode == "RGB":
        probe = Image.fromarray(np.stack(np.meshgrid(steps, steps, steps), -1).reshape(1, -1, 3))
    else:
        return transform
    change = np.asarray(ImageCms.applyTransform(probe, transform), np.int16)
    unchanged = np.abs(change - np.asarray(probe.convert("RGB"))).max() <= 2
    return None if unchanged else transform


def _unreadable(image: Image.Image) -> str | None:
    """Name what an opened, not yet decoded image holds if Pillow would read it to wrong values."""
    if image.format == "TIFF":
        return tiff.unreadable(image.tag_v2)
    if image.mode in ("I", "F"):
        return "32-bit values, whose range is unknown"
    if image.format == "PNG" and "transparency" in image.info and "RGB;16" in _raw_modes(image):
        return "16-bit RGB with a transparent colour"
    return None


def _unknown_tiff(path: str | os.PathLike, error: Exception) -> str | None:
    """Describe a TIFF that Pillow does not open, None if the file is damaged or something else."""
    if not isinstance(error, Image.UnidentifiedImageError):
        return None
    try:
        tags = tiff.read_tags(path)
        return tags and f"{tiff.describe(tags)}, a TIFF that cannot be read"
    except Exception:  # damaged in any way
        return None


def _scale_transparency(image: Image.Image) -> None:
    """Scale the transparent value of a grey PNG of 2 or 4 bits as Pillow will scale its pixels."""
    transparent = image.info.get("transparency")
    if image.format == "PNG" and image.mode == "L" and transparent is not None:
        factor = {"L;2": 85, "L;4": 17}.get(image.tile[0].args if image.tile else None, 1)
        image.info["transparency"] = transparent * factor


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Scale grey of 12 or 16 bits; Pillow would clip it, and ignores "white is zero" there."""
    if not image.mode.startswith("I;16"):
        return image
    values = np.asarray(image).astype(np.int32)
    tags = getattr(image, "tag_v2", {})
    largest = 4095 if tuple(tags.get(tiff.BITSPERSAMPLE, ())) == (12,) else 65535
    white_is_zero = tags.get(tiff.PHOTOMETRIC_INTERPRETATION) == tiff.WHITE_IS_ZERO
    scaled = np.round((largest - values if white_is_zero else values) / (largest / 255))
    grey = Image.fromarray(scaled.astype(np.uint8))
    grey.info = dict(image.info)
    transparent = grey.info.pop("transparency", None)
    if transparent is not None:
        grey.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
    return grey


def _oddities(image: Image.Image, image_size: int) -> list[str]:
    """Say what keeps an opened, not yet decoded image from being taken as it is."""
    oddities = []
    if getattr(image, "is_animated", False):
        oddities.append("animated or of several pages")
    if image.mode.startswith("I;16") or ";16" in _raw_modes(image):
        oddities.append("16-bit")
    if image.mode in ("1", "L", "LA", "La") or image.mode.startswith("I"):
        oddities.append("grey")
    elif image.mode in ("P", "PA"):
        oddities.append("with a palette")
    elif image.mode not in ("RGB", "RGBA"):
        oddities.append(image.mode)
    if image.has_transparency_data:
        oddities.append("with transparency")
    if _srgb_transform(image) is not None:
        oddities.append("with another colour profile than sRGB")
    # 0 and numbers above 8 mean nothing.
    if image.getexif().get(ExifTags.Base.Orientation) in range(2, 9):
        oddities.append("rotated by its EXIF data")
    if image.size != (image_size, image_size):
        oddities.append(f"{image.width}x{image.height} pixels")
    return oddities


def _raw_modes(image: Image.Image) -> str:
    """Return what the decoder will read: Pillow shows 16-bit colour as 8-bit."""
    return str([arguments for _, _, _, arguments in image.tile])


def _reason(error: Exception) -> str:
    """Say in a few words why Pillow cannot read a file; its own messages repeat the path."""
    if isinstance(error, Image.UnidentifiedImageError):
        return "unknown or damaged format"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = " ".join(str(error).split()) or type(error).__name__
    if "MAX_TEXT" in text or "Too much memory used in text chunks" in text:
        return "it holds more than 64 MB of text"
    return text[:200]
