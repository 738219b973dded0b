"""The wire format of protocol buffers, as far as ONNX files need it.

Source: https://protobuf.dev/programming-guides/encoding/. A message is a sequence of fields: a key
`number << 3 | type` as a varint, then a varint (type 0), 8 bytes (1), a length and as many bytes
(2), or 4 bytes (5). Nothing is copied: a field of bytes is a view into the file.
"""

from collections.abc import Iterator

import numpy as np

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5

Fields = dict[int, list]


class WireError(ValueError):
    """The bytes are no message."""


def read_fields(data: memoryview) -> Fields:
    """Return the fields of a message: number -> its values, in the order of the file.

    Varints are ints in [0, 2^64), fields of 4 or 8 bytes and of bytes are views.

    Raises:
        WireError: the message is cut short, or no message at all.
    """
    fields: Fields = {}
    for number, value in _fields(data):
        fields.setdefault(number, []).append(value)
    return fields


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    position, end = 0, len(data)
    while position < end:
        key, position = _varint(data, position)
        number, kind = key >> 3, key & 7
        if kind == VARINT:
            value, position = _varint(data, position)
            yield number, value
            continue
        if kind == BYTES:
            size, position = _varint(data, position)
        elif kind in (FIXED32, FIXED64):
            size = 4 if kind == FIXED32 else 8
        else:
            raise WireError(f"a field has the unknown wire type {kind}")
        if number == 0 or size > end - position:
            raise WireError("a field is longer than what is left of the file")
        yield number, data[position : position + size]
        position += size


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    """Return the number that begins at a position, and the position after it."""
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(data):
            break
        byte = data[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value & (2**64 - 1), position
    raise WireError("a number is cut short")


def signed(value: int) -> int:
    """Return a varint as the int64 that it stands for."""
    return value - 2**64 if value >= 2**63 else value


def integers(values: list) -> list[int]:
    """Return a repeated int64 field, packed or not."""
    numbers = []
    for value in values:
        if isinstance(value, int):
            numbers.append(signed(value))
            continue
        position = 0
        while position < len(value):
            number, position = _varint(value, position)
            numbers.append(signed(number))
    return numbers


def numbers(values: list, dtype: str) -> np.ndarray:
    """Return a repeated field of floats or doubles, packed or not, as an array [N].

    Raises:
        WireError: the bytes are no whole number of items.
    """
    joined = b"".join(bytes(value) for value in values if not isinstance(value, int))
    if len(joined) % np.dtype(dtype).itemsize:
        raise WireError("a list of numbers is cut short")
    return np.frombuffer(joined, dtype)


def text(values: list) -> str:
    """Return the last value of a string field; "" where it is missing.

    Raises:
        WireError: it is no UTF-8.
    """
    if not values:
        return ""
    if isinstance(values[-1], int):
        raise WireError("a name is no text")
    try:
        return bytes(values[-1]).decode("utf-8")
    except UnicodeDecodeError:
        raise WireError("a name is no UTF-8") from None
