"""Counts the floating-point operations of a function, every turn of its loops included."""

import math
from collections.abc import Callable
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal


def count_flops(function: Callable[..., Any], *arguments: Any) -> float:
    """Traces a function and counts its operations, see `traced_flops`.

    Args:
        function: a traceable function.
        arguments: arrays or `jax.ShapeDtypeStruct`s.
    """
    return _count(jax.make_jaxpr(function)(*arguments).jaxpr)


def traced_flops(traced: jax.stages.Traced) -> float:
    """Counts the operations of matrix products and convolutions, a multiply-add as two.

    A compiler's own count takes the body of a loop once, whatever its length; this one multiplies.
    What is recomputed in a backward pass counts each time; what nothing needs does not count.

    Args:
        traced: what `jax.jit(function).trace(...)` returns, which can be lowered afterwards.
    """
    return _count(traced.jaxpr.jaxpr)


def _count(jaxpr: Jaxpr) -> float:
    needed = {v for v in jaxpr.outvars if not isinstance(v, Literal)}
    total = 0.0
    for eqn in reversed(jaxpr.eqns):
        if needed.isdisjoint(eqn.outvars):
            continue
        needed.update(v for v in eqn.invars if not isinstance(v, Literal))
        total += _count_equation(eqn)
    return total


def _count_equation(eqn: JaxprEqn) -> float:
    if eqn.primitive.name == "dot_general":
        (contracted, _), _ = eqn.params["dimension_numbers"]
        depth = math.prod(eqn.invars[0].aval.shape[axis] for axis in contracted)
        return 2.0 * math.prod(eqn.outvars[0].aval.shape) * depth
    if eqn.primitive.name == "conv_general_dilated":
        kernel = eqn.invars[1].aval.shape
        outputs = kernel[eqn.params["dimension_numbers"].rhs_spec[0]]
        return 2.0 * math.prod(eqn.outvars[0].aval.shape) * math.prod(kernel) / outputs
    inner = [_count(jaxpr) for value in eqn.params.values() for jaxpr in _jaxprs(value)]
    if eqn.primitive.name == "cond":
        return max(inner)
    return eqn.params["length"] * sum(inner) if eqn.primitive.name == "scan" else sum(inner)


def _jaxprs(value: Any) -> list[Jaxpr]:
    if isinstance(value, ClosedJaxpr):
        return [value.jaxpr]
    if isinstance(value, Jaxpr):
        return [value]
    return [j for v in value for j in _jaxprs(v)] if isinstance(value, (tuple, list)) else []
