"""Image files that Pillow does not write: TIFF and PNG of any layout, colour profiles."""

import struct
import zlib

import numpy as np


def write_tiff(path, strips, size, bits, photometric, order="<", **tags):
    """Write a TIFF of one strip, or of one strip per plane.

    Args:
        path: the file.
        strips: bytes, or a list of bytes per plane.
        size: width and height.
        bits: of each sample.
        photometric: interpretation; None leaves it out.
        order: of bytes, "<" or ">".
        **tags: `compression`, `fill_order`, `sample_format`, `extra`, `subsampling`, `orientation`.
    """
    planar = 2 if isinstance(strips, list) else 1
    strips = strips if isinstance(strips, list) else [strips]
    offsets = np.cumsum([8, *(len(strip) for strip in strips)]).tolist()
    numbers = {
        "compression": 259, "fill_order": 266, "orientation": 274, "extra": 338,
        "sample_format": 339, "subsampling": 530,
    }  # fmt: skip
    entries = {
        256: [size[0]], 257: [size[1]], 258: bits, 259: [1], 262: [photometric], 273: offsets[:-1],
        277: [len(bits)], 278: [size[1]], 279: [len(strip) for strip in strips], 284: [planar],
    } | {numbers[name]: list(values) for name, values in tags.items()}  # fmt: skip
    if photometric is None:
        del entries[262]
    start = offsets[-1] + offsets[-1] % 2
    values_at = start + 2 + 12 * len(entries) + 4
    table, values = struct.pack(order + "H", len(entries)), b""
    for tag, numbers_of_tag in sorted(entries.items()):
        code, letter = (4, "I") if tag in (256, 257, 273, 278, 279) else (3, "H")
        data = struct.pack(f"{order}{len(numbers_of_tag)}{letter}", *numbers_of_tag)
        if len(data) > 4:
            data, values = struct.pack(order + "I", values_at + len(values)), values + data
        table += struct.pack(order + "HHI", tag, code, len(numbers_of_tag)) + data.ljust(4, b"\0")
    header = {"<": b"II", ">": b"MM"}[order] + struct.pack(order + "HI", 42, start)
    body = b"".join(strips).ljust(start - 8, b"\0")
    path.write_bytes(header + body + table + bytes(4) + values)


def pack(values, bits):
    """Pack rows of numbers into bits, most significant first."""
    rows = ("".join(format(value, f"0{bits}b") for value in row) for row in np.asarray(values))
    return [int(row, 2).to_bytes(len(row) // 8, "big") for row in rows]


def write_png(path, values, bits, color_type, *chunks):
    """Write a PNG of numbers [H, W] or [H, W, C], with further chunks (kind, data)."""
    height, width, *_ = values.shape
    rows = b"".join(b"\0" + row for row in pack(values.reshape(height, -1), bits))
    header = struct.pack(">IIBBBBB", width, height, bits, color_type, 0, 0, 0)
    chunks = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
            for kind, data in chunks
        )
    )


# Adobe RGB (1998): D50-adapted primaries, gamma 563 / 256.
ADOBE = {
    b"rXYZ": (0.60974, 0.31111, 0.01947),
    b"gXYZ": (0.20528, 0.62567, 0.06087),
    b"bXYZ": (0.14919, 0.06322, 0.74457),
}


def profile(space=b"RGB ", primaries=ADOBE, gamma=563 / 256):
    """Make an ICC profile of primaries and a gamma, or of grey with a gamma."""

    def xyz(values):
        return b"XYZ " + bytes(4) + struct.pack(">3i", *(round(v * 65536) for v in values))

    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)
    white = xyz((0.9642, 1.0, 0.8249))
    text = b"text" + bytes(4) + b"none" + bytes(4)
    elements = {b"wtpt": white, b"cprt": text}
    if space == b"GRAY":
        elements[b"kTRC"] = curve
    else:
        elements |= {tag: xyz(values) for tag, values in primaries.items()}
        elements |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    table, data, start = struct.pack(">I", len(elements)), b"", 132 + 12 * len(elements)
    for tag, element in elements.items():
        table += tag + struct.pack(">II", start + len(data), len(element))
        data += element
    size = start + len(data)
    head = struct.pack(">I4sI4s4s4s", size, bytes(4), 0x02100000, b"mntr", space, b"XYZ ")
    head += struct.pack(">6H", 2000, 1, 1, 0, 0, 0) + b"acsp" + bytes(28)
    head += struct.pack(">3i", *(round(v * 65536) for v in (0.9642, 1.0, 0.8249)))
    return head.ljust(128, b"\0") + table + data
