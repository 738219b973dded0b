"""A network's variables out of a state dict: every weight finds its place, or nothing is read."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from diffcf_jax.checkpoint.torch_keys import Path, from_torch, leaves, torch_shape
from diffcf_jax.errors import UserError


def fill(
    expected: Any,
    state_dict: Mapping[str, np.ndarray],
    name: Callable[[Path], str],
    source: str,
    misfit: str,
    ignored: str = r"$^",
) -> Any:
    """Return a network's variables, float32.

    Args:
        expected: the variables, or their shapes.
        state_dict: arrays in PyTorch's layout.
        name: the key of a variable.
        source: where the arrays come from, for messages.
        misfit: the beginning of the message when they are of another network.
        ignored: pattern of keys without a counterpart.

    Raises:
        UserError: weights are missing, extra, misshapen or not finite.
    """
    keys = {path: name(path) for path, _ in leaves(expected)}
    shapes = {keys[path]: torch_shape(path, leaf.shape) for path, leaf in leaves(expected)}
    problems = {
        "missing": [key for key in shapes if key not in state_dict],
        "misshapen": [
            f"{key} {state_dict[key].shape} instead of {shape}"
            for key, shape in shapes.items()
            if key in state_dict and state_dict[key].shape != shape
        ],
        "extra": [key for key in state_dict if key not in shapes and not re.match(ignored, key)],
    }
    if any(problems.values()):
        raise UserError(f"{misfit}: {_listed(problems)}.")

    def read(path: Any, _: Any) -> np.ndarray:
        address = tuple(entry.key for entry in path)
        return from_torch(address, state_dict[keys[address]])

    variables = jax.tree_util.tree_map_with_path(read, expected)
    broken = [keys[path] for path, array in leaves(variables) if not np.isfinite(array).all()]
    if broken:
        raise UserError(
            f"{source} has weights that are not finite in float32: "
            f"{_listed({'such weights': broken})}."
        )
    return variables


def _listed(problems: Mapping[str, Sequence[str]], most: int = 20) -> str:
    """Join the keys that do not fit into a sentence."""
    parts = []
    for what, keys in problems.items():
        if keys:
            more = ", ..." if len(keys) > most else ""
            named = ", ".join(key if len(key) <= 150 else f"{key[:150]}..." for key in keys[:most])
            parts.append(f"{len(keys)} {what} ({named}{more})")
    return "; ".join(parts)
