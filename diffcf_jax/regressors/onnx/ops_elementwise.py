"""Operators that work on each element: arithmetic, comparisons, rounding, types."""

import functools
import operator as python
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special

from diffcf_jax.regressors.onnx.model import DTYPES, Node
from diffcf_jax.regressors.onnx.table import OPERATORS, Array, is_static, library, operator


def _by_name(name: str) -> Callable[..., Array]:
    """An operator that numpy and jax.numpy have under one name."""
    return lambda node, *inputs: getattr(library(*inputs), name)(*inputs)


OPERATORS.update(
    {
        name: _by_name(function)
        for name, function in {
            "Add": "add", "Sub": "subtract", "Mul": "multiply", "Neg": "negative", "Abs": "abs",
            "Sqrt": "sqrt", "Exp": "exp", "Log": "log", "Reciprocal": "reciprocal", "Sign": "sign",
            "Floor": "floor", "Ceil": "ceil", "Round": "round", "Sin": "sin", "Cos": "cos",
            "Tan": "tan", "Asin": "arcsin", "Acos": "arccos", "Atan": "arctan", "Sinh": "sinh",
            "Cosh": "cosh", "Tanh": "tanh", "Asinh": "arcsinh", "Acosh": "arccosh",
            "Atanh": "arctanh", "Equal": "equal", "Less": "less", "LessOrEqual": "less_equal",
            "Greater": "greater", "GreaterOrEqual": "greater_equal", "And": "logical_and",
            "Or": "logical_or", "Xor": "logical_xor", "Not": "logical_not", "IsNaN": "isnan",
            "Where": "where", "BitwiseAnd": "bitwise_and", "BitwiseOr": "bitwise_or",
            "BitwiseXor": "bitwise_xor", "BitwiseNot": "bitwise_not",
        }.items()
    }
)  # fmt: skip


@operator("Div")
def _divide(node: Node, x: Array, y: Array) -> Array:
    """Return x / y; for integers, rounded towards 0."""
    if not jnp.issubdtype(x.dtype, jnp.integer):
        return library(x, y).divide(x, y)
    if not is_static(x, y):
        return jax.lax.div(*jnp.broadcast_arrays(x, jnp.asarray(y, jnp.asarray(x).dtype)))
    with np.errstate(divide="ignore"):
        return (np.sign(x) * np.sign(y) * (np.abs(x) // np.abs(y))).astype(x.dtype)


@operator("Mod")
def _mod(node: Node, x: Array, y: Array) -> Array:
    xp = library(x, y)
    return xp.fmod(x, y) if node.get("fmod", 0) else xp.mod(x, y)


@operator("Pow")
def _power(node: Node, x: Array, y: Array) -> Array:
    """Return x^y in x's type; a known whole exponent has a derivative at all x."""
    if is_static(x, y):
        return np.power(x, y).astype(x.dtype)
    if is_static(y) and np.size(y) == 1 and np.ndim(y) <= x.ndim:
        exponent = np.asarray(y).item()
        if exponent == 0.5:
            return jnp.sqrt(x).astype(x.dtype)
        if float(exponent).is_integer() and abs(exponent) <= 64:
            return jax.lax.integer_pow(x, int(exponent))
    return jnp.power(x, y).astype(x.dtype)


@operator("Erf")
def _erf(node: Node, x: Array) -> Array:
    return scipy.special.erf(x) if is_static(x) else jax.lax.erf(x)


@operator("Identity")
def _identity(node: Node, x: Array) -> Array:
    return x


@operator("Sum", "Min", "Max", "Mean")
def _combine(node: Node, *inputs: Array) -> Array:
    """One value of any number of inputs."""
    xp = library(*inputs)
    combine = {"Min": xp.minimum, "Max": xp.maximum}.get(node.op, python.add)
    value = functools.reduce(combine, inputs)
    return value / np.asarray(len(inputs), value.dtype) if node.op == "Mean" else value


@operator("Clip")
def _clip(node: Node, x: Array, low: Array | None = None, high: Array | None = None) -> Array:
    """Clip x to its bounds, with the derivative 0 on them, as ReLU6 has it."""
    low = node.get("min") if low is None else low
    high = node.get("max") if high is None else high
    xp = library(x, *(v for v in (low, high) if v is not None and not isinstance(v, float)))
    if low is not None:
        x = xp.where(x <= low, xp.asarray(low, x.dtype), x)
    if high is not None:
        x = xp.where(x >= high, xp.asarray(high, x.dtype), x)
    return x


@operator("Cast", "CastLike")
def _cast(node: Node, x: Array, like: Array | None = None) -> Array:
    dtype = DTYPES[node.get("to")] if like is None else like.dtype
    if is_static(x):
        with np.errstate(invalid="ignore"):
            return np.asarray(x).astype(dtype)
    return x.astype(jax.dtypes.canonicalize_dtype(dtype))


@operator("IsInf")
def _is_infinite(node: Node, x: Array) -> Array:
    xp = library(x)
    found = xp.zeros(x.shape, bool)
    if node.get("detect_positive", 1):
        found = found | (x == np.inf)
    return found | (x == -np.inf) if node.get("detect_negative", 1) else found
