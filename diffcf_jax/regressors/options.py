"""Options written as text: `size=64 range=255 mean=122.8,117,104.3`."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from diffcf_jax.errors import UserError
from diffcf_jax.files import short


def parse_options(text: str, what: str, readers: Mapping[str, Callable[[str], Any]]) -> dict:
    """Return the options of a text of `key=value` separated by spaces.

    Args:
        text: as the user wrote it.
        what: name of the text for messages, such as "preprocess".
        readers: key -> what makes a value of its text, with a ValueError if it is none.

    Raises:
        UserError: a key is unknown or twice there, or a value is none of its kind.
    """
    options: dict[str, Any] = {}
    for part in text.split():
        key, equals, value = part.partition("=")
        if key not in readers or not equals:
            raise UserError(
                f"{what} has {short(part)}: give key=value separated by spaces, with the keys "
                f"{', '.join(readers)}."
            )
        if key in options:
            raise UserError(f"{what} has {key} twice: give it once.")
        try:
            options[key] = readers[key](value)
        except ValueError as error:
            raise UserError(f"{what} has {key}={value}: {error}.") from None
    return options


def as_text(options: Mapping[str, Any]) -> str:
    """Return options in the form that `parse_options` reads."""

    def write(value: Any) -> str:
        if isinstance(value, tuple):
            first, last = value[0], value[-1]
            if len(value) > 2 and value == tuple(range(int(first), int(last) + 1)):
                return f"{int(first)}..{int(last)}"
            return ",".join(map(write, value))
        if isinstance(value, bool):
            return str(value).lower()
        return repr(value) if isinstance(value, float) and value != int(value) else _plain(value)

    return " ".join(f"{key}={write(value)}" for key, value in options.items())


def _plain(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) else str(value)


def number(text: str) -> float:
    """Read a finite number."""
    if not re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,2})?", text, re.ASCII):
        raise ValueError("it must be a number")
    return float(text)


def numbers(text: str) -> tuple[float, ...]:
    """Read numbers separated by commas, with a..b for all whole numbers from a to b."""
    values: list[float] = []
    for part in text.split(","):
        ends = re.fullmatch(r"(-?\d{1,6})\.\.(-?\d{1,6})", part, re.ASCII)
        if ends is None:
            values.append(number(part))
            continue
        first, last = int(ends[1]), int(ends[2])
        if not 0 < last - first < 100_000:
            raise ValueError(f"{part} must count upwards")
        values += map(float, range(first, last + 1))
    return tuple(values)


def pixels(text: str) -> tuple[int, int]:
    """Read a size in pixels, N or HEIGHTxWIDTH."""
    match = re.fullmatch(r"(\d{1,5})(?:x(\d{1,5}))?", text, re.ASCII)
    if match is None or not int(match[1]) or not int(match[2] or 1):
        raise ValueError("it must be a number of pixels, or HEIGHTxWIDTH")
    return int(match[1]), int(match[2] or match[1])


def yes_or_no(text: str) -> bool:
    """Read true or false."""
    if text not in ("true", "false"):
        raise ValueError("it must be true or false")
    return text == "true"


def choice(*names: str) -> Callable[[str], str]:
    """Return a reader of one of some names."""

    def read(text: str) -> str:
        if text not in names:
            raise ValueError(f"it must be {', '.join(names[:-1])} or {names[-1]}")
        return text

    return read


def word(text: str) -> str:
    """Read any text without spaces."""
    if not text:
        raise ValueError("it must not be empty")
    return text


def whole(text: str) -> int:
    """Read a whole number."""
    if not re.fullmatch(r"-?\d{1,9}", text, re.ASCII):
        raise ValueError("it must be a whole number")
    return int(text)


def wholes(text: str) -> tuple[int, ...]:
    """Read whole numbers separated by commas."""
    return tuple(map(whole, text.split(",")))
