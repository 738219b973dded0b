"""Operators that pick elements by their position, and that search for positions."""

import jax
import jax.numpy as jnp
import numpy as np

from diffcf_jax.regressors.onnx.model import Node
from diffcf_jax.regressors.onnx.table import (
    Array,
    axis_of,
    integers,
    is_static,
    library,
    operator,
    static,
    unsupported,
)


@operator("Gather")
def _gather(node: Node, x: Array, indices: Array) -> Array:
    axis = axis_of(node, node.get("axis", 0), x.ndim)
    if is_static(indices) and indices.ndim == 0:
        return x[(slice(None),) * axis + (int(indices),)]
    indices = _from_front(indices, x.shape[axis])
    if is_static(x, indices):
        return np.take(x, indices, axis)
    return jnp.take(x, indices, axis, mode="clip")


@operator("GatherElements")
def _gather_elements(node: Node, x: Array, indices: Array) -> Array:
    axis = axis_of(node, node.get("axis", 0), x.ndim)
    index = list(np.indices(indices.shape, sparse=True))
    index[axis] = _from_front(indices, x.shape[axis])
    return (x if is_static(x, indices) else jnp.asarray(x))[tuple(index)]


@operator("GatherND")
def _gather_nd(node: Node, x: Array, indices: Array) -> Array:
    batch = node.get("batch_dims", 0)
    index = [indices[..., i] for i in range(indices.shape[-1])]
    front = np.indices(indices.shape[:batch], sparse=True)
    extra = (1,) * (indices.ndim - 1 - batch)
    places = [place.reshape(place.shape + extra) for place in front]
    return (x if is_static(x, indices) else jnp.asarray(x))[(*places, *index)]


@operator("ScatterND")
def _scatter_nd(node: Node, x: Array, indices: Array, updates: Array) -> Array:
    index = tuple(indices[..., i] for i in range(indices.shape[-1]))
    return _scatter(node, x, index, updates)


@operator("ScatterElements", "Scatter")
def _scatter_elements(node: Node, x: Array, indices: Array, updates: Array) -> Array:
    axis = axis_of(node, node.get("axis", 0), x.ndim)
    index = list(np.indices(indices.shape, sparse=True))
    index[axis] = _from_front(indices, x.shape[axis])
    return _scatter(node, x, tuple(index), updates)


@operator("OneHot")
def _one_hot(node: Node, indices: Array, depth: Array, values: Array) -> Array:
    count = integers(node, depth, "the depth")[0]
    axis = axis_of(node, node.get("axis", -1), indices.ndim + 1)
    xp = library(indices, values)
    places = np.arange(count).reshape((-1,) + (1,) * (indices.ndim - axis))
    hot = xp.expand_dims(_from_front(indices, count), axis) == places
    return xp.where(hot, values[1], values[0])


@operator("NonZero")
def _non_zero(node: Node, x: Array) -> np.ndarray:
    return np.stack(np.nonzero(static(node, x, "the number of results"))).astype(np.int64)


@operator("ArgMax", "ArgMin")
def _arg_extreme(node: Node, x: Array) -> Array:
    """The position of an extreme value, whose gradient is 0."""
    axis = axis_of(node, node.get("axis", 0), x.ndim)
    xp = library(x)
    find = xp.argmax if node.op == "ArgMax" else xp.argmin
    if node.get("select_last_index", 0):
        found = x.shape[axis] - 1 - find(xp.flip(x, axis), axis)
    else:
        found = find(x, axis)
    found = xp.expand_dims(found, axis) if node.get("keepdims", 1) else found
    return found.astype(np.int64) if xp is np else found


@operator("TopK")
def _top_k(node: Node, x: Array, k: Array | None = None) -> tuple[Array, Array]:
    count = node.get("k") if k is None else integers(node, k, "the number of results")[0]
    axis = axis_of(node, node.get("axis", -1), x.ndim)
    order = jnp.argsort(jnp.asarray(x), axis, descending=bool(node.get("largest", 1)))
    indices = jax.lax.slice_in_dim(order, 0, count, axis=axis)
    return jnp.take_along_axis(jnp.asarray(x), indices, axis), indices


def _scatter(node: Node, x: Array, index: tuple, updates: Array) -> Array:
    kind = node.get("reduction", "none")
    if is_static(x, updates, *index):
        ufuncs = {"add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}
        result = np.array(x)
        if kind == "none":
            result[index] = updates
        else:
            ufuncs[kind].at(result, index, updates)
        return result
    place = jnp.asarray(x).at[index]
    methods = {
        "none": place.set, "add": place.add, "mul": place.multiply, "max": place.max,
        "min": place.min,
    }  # fmt: skip
    if kind not in methods:
        raise unsupported(node, f"reduction={kind}")
    return methods[kind](updates)


def _from_front(indices: Array, size: int) -> Array:
    """Indices that may count from the back, counted from the front."""
    return library(indices).where(indices < 0, indices + size, indices)
