"""Pictures of the report: embedded images, changes on one scale, and where an image changed."""

import base64
import dataclasses
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from diffcf_jax.errors import UserError
from diffcf_jax.files import read_image
from diffcf_jax.results.log import image_path

_SHARP_UP_TO = 96  # pixels; such images are embedded as they are and enlarged with sharp pixels
_CHANGED = 8  # of 255; smaller changes are not counted as changed area
_ROWS = ("upper", "middle", "lower")
_COLUMNS = ("left", "middle", "right")

# Index 127 is no change and transparent; 0 is full blue, darker; 254 full red, brighter.
_LEVELS = np.arange(255) - 127
_PALETTE = np.stack([np.where(_LEVELS > 0, 214, 33), _LEVELS * 0 + 64,
                     np.where(_LEVELS > 0, 52, 222)], axis=1).astype(np.uint8)  # fmt: skip
_ALPHA = np.minimum(255, np.abs(_LEVELS) * 255 // 127).astype(np.uint8)


def thumbnail_side(n: int) -> int:
    """Longest side of an embedded image, such that a page of n results can be sent by e-mail."""
    return next((side for most, side in ((150, 256), (400, 192), (1000, 128)) if n <= most), 96)


@dataclasses.dataclass(frozen=True)
class Change:
    """How a counterfactual differs from its input.

    Attributes:
        map: float32 [h, w], mean over channels of x' - x in [-1, 1], as large as the thumbnail.
        area: share of pixels in which a channel changed by 8/255 or more.
        mean: mean of `map` over that area; 0 if it is empty.
        place: the ninth of the image with most of the change, such as "upper left".
        share: how much of all |x' - x| lies there.
    """

    map: np.ndarray
    area: float
    mean: float
    place: str
    share: float

    def words(self) -> str:
        """The change in a sentence."""
        if not self.share:
            return "Nothing changed."
        if not self.area:
            return "No pixel changed by 8/255 or more."
        how = "brighter" if self.mean > 0 else "darker"
        where = f"{self.share:.0%} of the change lies in the {self.place} ninth of the image"
        if self.share < 2 / 9:
            where = "the change is spread over the image"
        return (
            f"{_percent(self.area)} of the image changed by 8/255 or more, on average "
            f"{abs(self.mean):.3f} {how} (full range 1); {where}."
        )


@dataclasses.dataclass(frozen=True)
class Loaded:
    """What is kept of the images of a result.

    Attributes:
        images: key of the row -> the embedded image (`encode`).
        change: None if an image is missing, or they have different sizes.
        faults: what could not be read, one sentence each.
    """

    images: Mapping[str, dict[str, Any]]
    change: Change | None
    faults: Sequence[str]


def load(folder: Path, row: Mapping[str, Any], keys: Sequence[str], side: int) -> Loaded:
    """Read images of a result, "input" and "cf" among them, and embed them as thumbnails."""
    pixels, faults = {}, []
    for key in keys:
        try:
            pixels[key] = read_image(image_path(folder, row, key))
        except UserError as error:
            faults.append(str(error))
    images = {key: encode(image, side) for key, image in pixels.items()}
    return Loaded(images, _change(pixels.get("input"), pixels.get("cf"), side), faults)


class Album:
    """The images of a page, each embedded once.

    Attributes:
        images: data URI, width, height and whether to enlarge with sharp pixels, by number.
    """

    def __init__(self) -> None:
        self.images: list[dict[str, Any]] = []
        self._numbers: dict[str, int] = {}

    def add(self, image: dict[str, Any] | None) -> int | None:
        """Keep an image, unless it is there, and return its number."""
        if image is None:
            return None
        number = self._numbers.setdefault(image["source"], len(self.images))
        if number == len(self.images):
            self.images.append(image)
        return number


def _change(image: np.ndarray | None, found: np.ndarray | None, side: int) -> Change | None:
    if image is None or found is None or image.shape != found.shape or image.ndim != 3:
        return None
    difference = found.astype(np.int16) - image
    signed = difference.mean(-1, dtype=np.float32) / 255
    changed = np.abs(difference).max(-1) >= _CHANGED
    mean = float(signed[changed].mean()) if changed.any() else 0.0
    place, share = _densest(np.abs(difference).sum(-1))
    return Change(_shrink(signed, side), float(changed.mean()), mean, place, share)


def scale_of(maps: Iterable[np.ndarray]) -> float:
    """The change that is drawn in full colour: 9 of 10 images have no larger one."""
    largest = [float(np.abs(d).max()) for d in maps]
    return max(float(np.quantile(largest, 0.9)) if largest else 1.0, 2 / 255)


def colours(d: np.ndarray, scale: float) -> dict[str, Any]:
    """A change in [-scale, scale] as an image: red brighter, blue darker, unchanged transparent."""
    levels = np.rint(127 * np.clip(d / scale, -1, 1)) + 127
    image = Image.fromarray(levels.astype(np.uint8)).convert("P")
    image.putpalette(_PALETTE.tobytes())
    return _png(image, transparency=_ALPHA.tobytes())


def outline(mask: np.ndarray) -> dict[str, Any]:
    """The inner border of a mask [H, W], opaque on transparent."""
    inside = np.pad(mask > 127, 1)
    core = inside[:-2, 1:-1] & inside[2:, 1:-1] & inside[1:-1, :-2] & inside[1:-1, 2:]
    border = inside[1:-1, 1:-1] & ~core
    image = Image.fromarray(border.astype(np.uint8)).convert("P")
    image.putpalette([0, 0, 0, 255, 200, 0])
    return _png(image, transparency=b"\0\xff")


def average_maps(
    y: Sequence[float], changes: Sequence[Change], most: int = 5
) -> tuple[list[dict[str, Any]], float]:
    """The mean change of all counterfactuals that read a range of predictions.

    Args:
        y: the prediction of each counterfactual.
        changes: theirs; those of another size than the first are left out.
        most: ranges, of equal width.

    Returns:
        For each range that has any, `low`, `high`, `n`, `image` (the mean), and the ninths of the
        image where it is `brighter` and `darker` most (None: nowhere); and the scale of all.
    """
    kept = [(v, c) for v, c in zip(y, changes, strict=True) if c.map.shape == changes[0].map.shape]
    values = np.array([v for v, _ in kept])
    low, high = float(values.min()), float(values.max())
    ranges = min(most, len(set(values.tolist())))
    index = np.minimum((values - low) / ((high - low) or 1) * ranges, ranges - 1).astype(int)
    means = {
        k: [c.map for i, (_, c) in zip(index, kept, strict=True) if i == k]
        for k in sorted(set(index.tolist()))
    }
    signed = {k: np.mean(maps, axis=0) for k, maps in means.items()}
    scale = max(max(float(np.abs(d).max()) for d in signed.values()), 1 / 255)
    width = (high - low) / ranges
    found = []
    for k, maps in means.items():
        found.append({
            "low": low + k * width, "high": low + (k + 1) * width, "n": len(maps),
            "image": colours(signed[k], scale), "brighter": _where(signed[k]),
            "darker": _where(-signed[k]),
        })  # fmt: skip
    return found, scale


def _where(rise: np.ndarray) -> str | None:
    """The ninth of an image that rises most; None where none does."""
    cells = _ninths(rise)
    return _place(cells) if cells.max() > 0 else None


def _densest(weight: np.ndarray) -> tuple[str, float]:
    """The ninth of an image [H, W] with the largest sum, and its share of the whole sum."""
    cells = _ninths(weight)
    return _place(cells), float(cells.max() / cells.sum()) if cells.sum() else 0.0


def _ninths(weight: np.ndarray) -> np.ndarray:
    return np.array([
        [float(part.sum()) for part in np.array_split(row, 3, axis=1)]
        for row in np.array_split(weight, 3, axis=0)
    ])  # fmt: skip


def _place(cells: np.ndarray) -> str:
    i, j = divmod(int(cells.argmax()), 3)
    return "central" if (i, j) == (1, 1) else f"{_ROWS[i]} {_COLUMNS[j]}"


def encode(pixels: np.ndarray, side: int) -> dict[str, Any]:
    """An image as a data URI: exact where it is small, otherwise a thumbnail."""
    image = Image.fromarray(pixels)
    if max(image.size) <= _SHARP_UP_TO:
        return _png(image)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=85)
    return _described(image, "webp", buffer.getvalue(), sharp=False)


def _shrink(d: np.ndarray, side: int) -> np.ndarray:
    if max(d.shape) <= _SHARP_UP_TO:
        return d
    image = Image.fromarray(d)
    image.thumbnail((side, side), Image.Resampling.BOX)
    return np.asarray(image)


def _png(image: Image.Image, **options: Any) -> dict[str, Any]:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **options)
    return _described(image, "png", buffer.getvalue(), max(image.size) <= _SHARP_UP_TO)


def _described(image: Image.Image, kind: str, data: bytes, sharp: bool) -> dict[str, Any]:
    source = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    return {"source": source, "width": image.width, "height": image.height, "sharp": sharp}


def _percent(share: float) -> str:
    return f"{share:.1%}" if share < 0.1 else f"{share:.0%}"
