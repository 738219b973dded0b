"""Reads a part of a config into a dataclass; what does not fit is named as the user wrote it."""

import dataclasses
import difflib
import numbers
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar

from diffcf_jax.errors import UserError

T = TypeVar("T")

# What a key must hold, in words.
_WORDS = {
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    str: "text",
    Sequence: "a list",
    Mapping: "a dictionary",
}


def build(kind: type[T], values: Mapping[str, Any], where: str, **given: Any) -> T:
    """Makes a dataclass from a part of a config.

    Args:
        kind: the dataclass; attributes that are dataclasses themselves are made from theirs.
        values: attribute -> value, as the user wrote them.
        where: the part's name, such as "config.optimizer".
        given: attributes that are not the user's.

    Raises:
        UserError: a key is unknown or missing, or what the dataclass itself finds wrong.
    """
    fields = [field for field in dataclasses.fields(kind) if field.name not in given]
    check_keys(values, [field.name for field in fields], where)
    for field in fields:
        needed = field.default is field.default_factory is dataclasses.MISSING
        if needed and field.name not in values:
            raise UserError(f"{where}.{field.name} is missing: add it to the config file.")
    parts = {
        name: build(hint, values[name] or {}, f"{where}.{name}")
        for name, hint in typing.get_type_hints(kind).items()
        if name in values and dataclasses.is_dataclass(hint)
    }
    return kind(**{**values, **parts, **given})


def check_keys(values: Mapping[str, Any], names: Sequence[str], where: str) -> None:
    """Refuses keys that are not among some names.

    Raises:
        UserError: it names the key and the name that is nearest to it.
    """
    if not isinstance(values, Mapping):
        raise UserError(f"{where}={values!r} must be {_WORDS[Mapping]}.")
    for key in values:
        if key not in names:
            nearest = difflib.get_close_matches(str(key), names, 1)
            hint = f"did you mean {where}.{nearest[0]}?" if nearest else f"use {', '.join(names)}."
            raise UserError(f"Unknown {where}.{key}: {hint}")


def check_types(options: Any, where: str) -> None:
    """Refuses values of another type than a dataclass of options declares for them.

    Args:
        options: the dataclass. Of its attributes, numbers, texts, choices, lists and dictionaries
            are checked.
        where: see `build`.

    Raises:
        UserError: it names the key.
    """
    hints = typing.get_type_hints(type(options))
    for field in dataclasses.fields(options):
        name, hint, value = field.name, hints[field.name], getattr(options, field.name)
        kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        if any(_fits(value, kind) for kind in kinds):
            continue
        if typing.get_origin(hint) is Literal:
            choices = " or ".join(typing.get_args(hint))
            raise UserError(f"Unknown {where}.{name} '{value}': use {choices}.")
        wanted = _WORDS[typing.get_origin(kinds[0]) or kinds[0]]
        raise UserError(f"{where}.{name}={value!r} must be {wanted}.")


def at_least(bound: int, key: str, value: float | None) -> None:
    """Refuses a value below a bound, and NaN; None passes.

    Raises:
        UserError: it names the key.
    """
    if value is not None and not value >= bound:
        raise UserError(f"{key}={value} must be at least {bound}.")


def _fits(value: Any, kind: Any) -> bool:
    if typing.get_origin(kind) is Literal:
        return value in typing.get_args(kind)
    kind = typing.get_origin(kind) or kind
    if kind is types.NoneType:
        return value is None
    if kind not in _WORDS:  # a module or a process, which no config holds
        return True
    if isinstance(value, bool | str):
        return isinstance(value, kind) and kind in (bool, str)
    return isinstance(value, {int: numbers.Integral, float: numbers.Real}.get(kind, kind))
