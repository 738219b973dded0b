"""The table of operators, and what all of them share.

An operator is a function of its node and its inputs, None for one that is left out, to its output
or a tuple of outputs. Inputs are numpy arrays where they do not depend on the image or the
weights: shapes, indices and what is computed from them. What is made of numpy arrays alone stays
one, so that the chains of Shape, Gather and Reshape that exporters write are computed while the
program is traced.

The semantics are those of https://onnx.ai/onnx/operators/, for all versions up to opset 23.
"""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffcf_jax.errors import UserError
from diffcf_jax.regressors.onnx.model import Node

Array = jax.Array | np.ndarray
Operator = Callable[..., Any]

OPERATORS: dict[str, Operator] = {}


def operator(*names: str) -> Callable[[Operator], Operator]:
    """Enter a function into the table, under the names of the operators that it computes."""

    def enter(function: Operator) -> Operator:
        OPERATORS.update(dict.fromkeys(names, function))
        return function

    return enter


def is_static(*inputs: Array | None) -> bool:
    """Whether inputs are known while the program is traced."""
    return all(x is None or isinstance(x, (np.ndarray, np.generic)) for x in inputs)


def library(*inputs: Array | None) -> ModuleType:
    """Return numpy for inputs that are known while the program is traced, else jax.numpy."""
    return np if is_static(*inputs) else jnp


def static(node: Node, value: Array | None, what: str) -> np.ndarray:
    """Return an input that must be known while the program is traced.

    Raises:
        UserError: it depends on the image.
    """
    if not is_static(value) or value is None:
        raise UserError(
            f"{what} of {node} depends on the image, which is not supported: export the model for "
            "a fixed image size."
        )
    return np.asarray(value)


def integers(node: Node, value: Array | None, what: str) -> list[int]:
    """Return an input of static integers as a list."""
    return [int(x) for x in static(node, value, what).reshape(-1)]


def axis_of(node: Node, axis: int, rank: int) -> int:
    """Return an axis counted from the front.

    Raises:
        UserError: there is no such axis.
    """
    if not -rank <= axis < max(rank, 1):
        raise UserError(
            f"{node} has axis={axis}, but an input of {rank} dimensions: export the model again."
        )
    return axis % max(rank, 1)


def axes_of(node: Node, given: Array | None, rank: int) -> tuple[int, ...] | None:
    """Return the axes that a node names by attribute or by input; None: it names none."""
    axes = node.get("axes") if given is None else integers(node, given, "an axis")
    return None if axes is None else tuple(axis_of(node, axis, rank) for axis in axes)


def unsupported(node: Node, what: str) -> UserError:
    """The error for a form of a known operator that this reader does not compute."""
    return UserError(
        f"{node} has {what}, which is not supported: change the model and export it again, or give "
        "the regressor as a function (package.module:name)."
    )
