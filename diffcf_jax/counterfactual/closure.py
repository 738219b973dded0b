"""Functions that close over their weights, made into functions of their weights."""

import inspect
from collections.abc import Callable
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun

Array = jax.Array


def hoist_constants(
    function: Callable[[Array], Array], shape: jax.ShapeDtypeStruct
) -> tuple[Callable[[Any, Array], Array], list[Array]]:
    """Return `apply` and `constants` such that `apply(constants, x) = function(x)`.

    Arrays that a function closes over would be written into every program that calls it, where
    the compiler folds them for seconds; as arguments they cost nothing. A jitted function is
    unwrapped; functions that are jitted inside of it keep their constants.

    Args:
        function: of one array, to one array.
        shape: of x; `apply` takes no other.
    """
    closed = jax.make_jaxpr(inspect.unwrap(function))(shape)

    def apply(constants: Any, x: Array) -> Array:
        (y,) = jaxpr_as_fun(ClosedJaxpr(closed.jaxpr, constants))(x)
        return y

    return apply, list(closed.consts)
