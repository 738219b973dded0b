"""JSON that every parser reads, and JSON that anybody may have edited."""

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np

from diffcf_jax.errors import UserError
from diffcf_jax.files import read_text

_MOST_NESTED = 50  # levels of brackets


def read_json(path: Path, remedy: str = "check the file") -> dict[str, Any]:
    """The object in a JSON file, see `parse_json`.

    Raises:
        UserError: the file cannot be read, or holds something else.
    """
    text = read_text(path, remedy=remedy)
    try:
        return parse_json(text)
    except ValueError as error:
        raise UserError(f"{path} is broken ({error}); {remedy}") from None


def parse_json(text: str) -> dict[str, Any]:
    """The object in a JSON text that anybody may have edited.

    Raises:
        ValueError: what is wrong: it is no JSON, no object, nested too deeply, or holds NaN,
            infinity, a number of thousands of digits or characters that no file can hold.
    """
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise ValueError(f"{error.msg} at column {error.colno} of line {error.lineno}") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except _Constant as error:
        raise ValueError(f"it holds {error}") from None
    except ValueError:
        raise ValueError("a number has too many digits") from None
    if not isinstance(value, dict):
        raise ValueError("it is not a JSON object")
    # Only escapes can make characters that are none.
    if "\\u" in text or text.count("[") + text.count("{") > _MOST_NESTED:
        _check_values(value, 0)
    return value


class _Constant(ValueError):
    """NaN or an infinity, which JSON does not know."""


def _refuse_constant(name: str) -> None:
    raise _Constant(name)


def _check_values(value: Any, depth: int) -> None:
    if depth > _MOST_NESTED:
        raise ValueError("it is nested too deeply")
    if isinstance(value, dict):
        for key, item in value.items():
            _check_values(key, depth)
            _check_values(item, depth + 1)
    elif isinstance(value, list):
        for item in value:
            _check_values(item, depth + 1)
    elif isinstance(value, str) and re.search("[\0\ud800-\udfff]", value):
        raise ValueError("a text holds half a surrogate pair or a NUL")


def strict_json(value: Any, indent: int | None = None) -> str:
    """JSON that every parser reads: NaN and infinities become null, tuples lists, paths text."""
    try:
        return json.dumps(value, indent=indent, allow_nan=False, ensure_ascii=False)
    except (TypeError, ValueError):  # not plain yet, which is slow to make for many lines
        return json.dumps(_plain(value), indent=indent, allow_nan=False, ensure_ascii=False)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | np.ndarray):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    return str(value)
