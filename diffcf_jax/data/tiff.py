"""The sample layouts of TIFF files that Pillow reads to other values than they mean, or not at all.

Reference: TIFF Revision 6.0 (Adobe, 1992).
"""

import os

from PIL import TiffImagePlugin
from PIL.TiffImagePlugin import (
    BITSPERSAMPLE,
    COMPRESSION,
    FILLORDER,
    PHOTOMETRIC_INTERPRETATION,
    PLANAR_CONFIGURATION,
    SAMPLEFORMAT,
    SAMPLESPERPIXEL,
    YCBCRSUBSAMPLING,
)

WHITE_IS_ZERO, YCBCR, CIELAB = 0, 6, 8
_PHOTOMETRIC = {
    0: "grey (white is zero)", 1: "grey", 2: "RGB", 3: "palette", 4: "mask", 5: "CMYK",
    6: "YCbCr", 8: "CIELAB", 9: "ICCLAB", 10: "ITULAB", 32803: "colour filter array",
    32844: "LogL", 32845: "LogLuv", 34892: "linear raw",
}  # fmt: skip
_SAMPLE_FORMATS = {1: "", 2: "signed ", 3: "floating-point ", 5: "complex ", 6: "complex "}


def read_tags(path: str | os.PathLike) -> TiffImagePlugin.ImageFileDirectory_v2 | None:
    """Return the tags of a TIFF file's first image, None if the file is no TIFF."""
    with open(path, "rb") as file:
        header = file.read(8)
        if header[:4] not in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
            return None
        header += file.read(8) if b"+" in header[:4] else b""  # BigTIFF
        tags = TiffImagePlugin.ImageFileDirectory_v2(header)
        file.seek(tags.next)
        tags.load(file)
        return tags


def describe(tags: TiffImagePlugin.ImageFileDirectory_v2) -> str:
    """Describe the samples of a TIFF file, such as "RGB in 32-bit floating-point values"."""
    photometric = tags.get(PHOTOMETRIC_INTERPRETATION)
    kind = _PHOTOMETRIC.get(photometric, f"photometric interpretation {photometric}")
    bits = sorted(set(tags.get(BITSPERSAMPLE, (1,))))
    formats = sorted(set(tags.get(SAMPLEFORMAT, (1,))))
    words = "".join(_SAMPLE_FORMATS.get(code, "undefined ") for code in formats)
    return f"{kind} in {'/'.join(map(str, bits))}-bit {words}values"


def unreadable(tags: TiffImagePlugin.ImageFileDirectory_v2) -> str | None:
    """Name the layout of a file that Pillow opens but would read to wrong values; None if right."""
    photometric = tags.get(PHOTOMETRIC_INTERPRETATION)
    bits = tags.get(BITSPERSAMPLE, (1,))
    raw = tags.get(COMPRESSION, 1) == 1
    if photometric is None:
        return "samples without a photometric interpretation"
    if set(tags.get(SAMPLEFORMAT, (1,))) != {1} or max(bits) > 16:
        return f"{describe(tags)}, whose range is unknown"
    if photometric == YCBCR and raw and tags.get(YCBCRSUBSAMPLING, (1, 1)) != (1, 1):
        return "subsampled YCbCr without compression"
    if tags.get(PLANAR_CONFIGURATION, 1) == 2 and tags.get(SAMPLESPERPIXEL, 1) > 1:
        odd_order = tags.get(FILLORDER, 1) != 1
        if photometric in (YCBCR, CIELAB) or raw and (max(bits) > 8 or odd_order):
            return f"{describe(tags)} in separate planes"
    return None
