"""The methods by their names in configs."""

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any

from diffcf_jax.counterfactual.ac_re import ACRE
from diffcf_jax.counterfactual.diffae_re import DiffAERE
from diffcf_jax.counterfactual.options import OptionError, Options

METHODS: dict[str, type[Options]] = {method.name: method for method in (ACRE, DiffAERE)}


def method_options(name: str, options: Mapping[str, Any]) -> Options:
    """Return the options of the method of that name.

    Raises:
        OptionError: the name or an option is unknown, or a value is out of its range.
    """
    if name not in METHODS:
        raise OptionError(f"name='{name}' is no method; choose one of {', '.join(METHODS)}.")
    known = [field.name for field in dataclasses.fields(METHODS[name])]
    for key in options:
        if key not in known:
            close = difflib.get_close_matches(key, known, 1)
            hint = f"did you mean {close[0]}?" if close else f"choose from {', '.join(known)}."
            raise OptionError(f"{key} is no option of {name}: {hint}")
    return METHODS[name](**options)
