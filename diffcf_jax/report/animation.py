"""An animation from an image to its counterfactuals, with the prediction on a gauge."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from diffcf_jax.files import read_image
from diffcf_jax.report.figures import ticks
from diffcf_jax.results.log import image_path

FORMATS = ("webp", "gif")

_SIZE = 320  # pixels of the shown image at least
_FADE = 12  # frames between two images
_HOLD = 900  # milliseconds that an image stands
_FRAME = 45
_GAUGE = 64  # height, in pixels
_MARGIN = 24
_INK, _SOFT, _PAGE, _MARK = (29, 31, 33), (130, 135, 140), (252, 252, 251), (194, 87, 26)


def animate(
    folder: Path, rows: Sequence[Mapping[str, Any]], unit: str | None = None, form: str = "webp"
) -> bytes:
    """Fade from the input through its counterfactuals in the order of their predictions, and back.

    The gauge shows the regressor's reading. While an image stands, that is what was measured for
    it; between two, the needle moves and no number is shown.

    Args:
        folder: of the results.
        rows: lines of results.jsonl of one image, without errors; those whose y_final is not known
            are left out.
        unit: of the readings.
        form: "webp" or "gif".

    Returns:
        The file.

    Raises:
        UserError: an image is missing or broken.
    """
    known = sorted((row for row in rows if row["y_final"] is not None), key=lambda r: r["y_final"])
    start = rows[0]["y_initial"]
    if len(known) == 1 and start is not None and known[0]["y_final"] < start:
        known = known[::-1]
    stills = [(image_path(folder, rows[0], "input"), start, "input")]
    stills += [(image_path(folder, row, "cf"), row["y_final"], "counterfactual") for row in known]
    shown = [(_enlarged(read_image(path)), y, what) for path, y, what in stills]
    values = [y for _, y, _ in shown if y is not None]
    pad = 0.06 * max(max(values) - min(values), 1e-3)
    bounds = min(values) - pad, max(values) + pad

    frames, durations = [], []
    for (image, y, what), (following, then, _) in zip(shown, shown[1:] + shown[:1], strict=True):
        text = what if y is None else f"{what}: {y:.3g} {unit or ''}".rstrip()
        frames.append(_frame(image, y, text, bounds))
        durations.append(_HOLD)
        for share in np.linspace(0, 1, _FADE + 2)[1:-1]:
            mixed = (1 - share) * image + share * following
            needle = None if y is None or then is None else (1 - share) * y + share * then
            frames.append(_frame(mixed, needle, "", bounds))
            durations.append(_FRAME)
    file = io.BytesIO()
    frames[0].save(file, form, save_all=True, append_images=frames[1:], duration=durations, loop=0)
    return file.getvalue()


def _enlarged(image: np.ndarray) -> np.ndarray:
    """Whole pixels as squares, so that small images stay what they are."""
    factor = max(1, -(-_SIZE // image.shape[0]))
    return image.repeat(factor, 0).repeat(factor, 1).astype(np.float32)


def _frame(
    image: np.ndarray, y: float | None, text: str, bounds: tuple[float, float]
) -> Image.Image:
    height, width = image.shape[:2]
    frame = Image.new("RGB", (width, height + _GAUGE), _PAGE)
    frame.paste(Image.fromarray(np.rint(image).astype(np.uint8)), (0, 0))
    draw, font = ImageDraw.Draw(frame), ImageFont.load_default(13)
    low, high = bounds
    line = height + 26

    def px(value: float) -> float:
        return _MARGIN + (width - 2 * _MARGIN) * (value - low) / (high - low)

    draw.line((_MARGIN, line, width - _MARGIN, line), fill=_SOFT)
    for tick in ticks(low, high):
        draw.line((px(tick), line, px(tick), line + 4), fill=_SOFT)
        draw.text((px(tick), line + 7), f"{tick:g}", fill=_SOFT, font=font, anchor="mt")
    if y is not None:
        x = px(y)
        draw.polygon([(x, line - 1), (x - 6, line - 11), (x + 6, line - 11)], fill=_MARK)
    draw.text((width / 2, height + 3), text, fill=_INK, font=font, anchor="mt")
    return frame
