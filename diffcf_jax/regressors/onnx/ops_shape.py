"""Operators that move elements: shapes, slices, concatenations, padding."""

import math

import jax.numpy as jnp
import numpy as np

from diffcf_jax.errors import UserError
from diffcf_jax.regressors.onnx.model import Node
from diffcf_jax.regressors.onnx.table import (
    Array,
    axes_of,
    axis_of,
    integers,
    library,
    operator,
    static,
    unsupported,
)


@operator("Shape")
def _shape(node: Node, x: Array) -> np.ndarray:
    return np.asarray(np.shape(x)[node.get("start", 0) : node.get("end")], np.int64)


@operator("Size")
def _size(node: Node, x: Array) -> np.ndarray:
    return np.asarray(np.size(x), np.int64)


@operator("Constant")
def _constant(node: Node) -> Array:
    for name in ("value", "value_float", "value_int", "value_floats", "value_ints"):
        value = node.attributes.get(name)
        if value is not None:
            dtype = None if name == "value" else np.float32 if "float" in name else np.int64
            return np.asarray(value, dtype)
    raise unsupported(node, "no value of numbers")


@operator("ConstantOfShape")
def _constant_of_shape(node: Node, shape: Array) -> Array:
    value = node.get("value", np.zeros(1, np.float32))
    return np.full(_checked(node, integers(node, shape, "the shape")), value.reshape(())[()])


@operator("Range")
def _range(node: Node, start: Array, limit: Array, step: Array) -> np.ndarray:
    ends = (static(node, x, "the range").reshape(())[()] for x in (start, limit, step))
    start, limit, step = ends
    if step == 0 or not abs((limit - start) / step) < 2**26:
        raise unsupported(node, "no end")
    return np.arange(start, limit, step, static(node, start, "the range").dtype)


@operator("Reshape")
def _reshape(node: Node, x: Array, shape: Array | None = None) -> Array:
    sizes = node.get("shape") if shape is None else integers(node, shape, "the shape")
    if not node.get("allowzero", 0):
        sizes = [x.shape[i] if size == 0 and i < x.ndim else size for i, size in enumerate(sizes)]
    known = math.prod(size for size in sizes if size != -1)
    fits = known and x.size % known == 0 if -1 in sizes else known == x.size
    if not fits or sizes.count(-1) > 1 or min(sizes, default=0) < -1:
        raise UserError(
            f"{node} cannot give {tuple(x.shape)} the shape {tuple(sizes)}: export the model for "
            "the size of images that it is given."
        )
    return x.reshape(sizes)


@operator("Flatten")
def _flatten(node: Node, x: Array) -> Array:
    axis = node.get("axis", 1)
    axis = axis if axis == x.ndim else axis_of(node, axis, x.ndim)
    return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


@operator("Squeeze")
def _squeeze(node: Node, x: Array, axes: Array | None = None) -> Array:
    return library(x).squeeze(x, axes_of(node, axes, x.ndim))


@operator("Unsqueeze")
def _unsqueeze(node: Node, x: Array, axes: Array | None = None) -> Array:
    given = node.get("axes") if axes is None else integers(node, axes, "an axis")
    return library(x).expand_dims(x, axes_of(node, np.asarray(given), x.ndim + len(given)))


@operator("Transpose")
def _transpose(node: Node, x: Array) -> Array:
    return library(x).transpose(x, node.get("perm"))


@operator("Concat")
def _concat(node: Node, *inputs: Array) -> Array:
    return library(*inputs).concatenate(inputs, axis=node.get("axis", 1))


@operator("Expand")
def _expand(node: Node, x: Array, shape: Array) -> Array:
    wanted = np.broadcast_shapes(x.shape, tuple(integers(node, shape, "the shape")))
    return library(x).broadcast_to(x, _checked(node, wanted))


@operator("Tile")
def _tile(node: Node, x: Array, repeats: Array) -> Array:
    times = integers(node, repeats, "the number of repeats")
    _checked(node, [size * time for size, time in zip(x.shape, times, strict=True)])
    return library(x).tile(x, times)


@operator("Split")
def _split(node: Node, x: Array, sizes: Array | None = None) -> tuple[Array, ...]:
    axis = axis_of(node, node.get("axis", 0), x.ndim)
    parts = node.get("split") if sizes is None else integers(node, sizes, "the sizes")
    if parts is None:
        count = node.get("num_outputs", len(node.outputs))
        size = -(-x.shape[axis] // count)
        parts = [min(size, max(0, x.shape[axis] - i * size)) for i in range(count)]
    return tuple(library(x).split(x, np.cumsum(parts)[:-1], axis))


@operator("Slice")
def _slice(node: Node, x: Array, *given: Array) -> Array:
    rank = x.ndim
    if node.opset < 10:
        starts, ends = node.get("starts"), node.get("ends")
        axes, steps = node.get("axes"), None
    else:
        lists = [None if x is None else integers(node, x, "a border") for x in given]
        starts, ends, axes, steps = lists + [None] * (4 - len(lists))
    axes = list(range(len(starts))) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    index = [slice(None)] * rank
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        axis = axis_of(node, axis, rank)
        size = x.shape[axis]
        start, end = (place + size if place < 0 else place for place in (start, end))
        if step > 0:
            index[axis] = slice(max(0, min(start, size)), max(0, min(end, size)), step)
        else:
            end = max(-1, min(end, size - 1))
            index[axis] = slice(max(0, min(start, size - 1)), None if end < 0 else end, step)
    return x[tuple(index)]


@operator("Pad")
def _pad(
    node: Node, x: Array, pads: Array | None = None, value: Array | None = None,
    axes: Array | None = None,
) -> Array:  # fmt: skip
    """Pads with a constant, a border or a reflection; negative pads cut off."""
    widths = node.get("pads") if pads is None else integers(node, pads, "the padding")
    chosen = axes_of(node, axes, x.ndim) or tuple(range(x.ndim))
    before, after = np.zeros((2, x.ndim), int)
    before[list(chosen)], after[list(chosen)] = np.reshape(widths, (2, -1))
    cut = tuple(
        slice(max(0, -a), size - max(0, -b))
        for a, b, size in zip(before, after, x.shape, strict=True)
    )
    x, wide = x[cut], np.maximum(0, np.stack([before, after], 1)).tolist()
    _checked(node, [size + sum(pair) for size, pair in zip(x.shape, wide, strict=True)])
    mode = node.get("mode", "constant")
    xp = library(x, value)
    if mode == "constant":
        number = node.get("value", 0.0) if value is None else value.reshape(())
        return xp.pad(x, wide, constant_values=xp.asarray(number).astype(x.dtype))
    return xp.pad(x, wide, mode)


@operator("DepthToSpace")
def _depth_to_space(node: Node, x: Array) -> Array:
    b, c, h, w = x.shape
    n = node.get("blocksize")
    if node.get("mode", "DCR") == "DCR":
        parts = x.reshape(b, n, n, c // n**2, h, w).transpose(0, 3, 4, 1, 5, 2)
    else:
        parts = x.reshape(b, c // n**2, n, n, h, w).transpose(0, 1, 4, 2, 5, 3)
    return parts.reshape(b, c // n**2, h * n, w * n)


@operator("SpaceToDepth")
def _space_to_depth(node: Node, x: Array) -> Array:
    b, c, h, w = x.shape
    n = node.get("blocksize")
    order = (0, 3, 5, 1, 2, 4) if node.get("mode", "DCR") == "DCR" else (0, 1, 3, 5, 2, 4)
    parts = x.reshape(b, c, h // n, n, w // n, n).transpose(order)
    return parts.reshape(b, c * n**2, h // n, w // n)


@operator("Trilu")
def _trilu(node: Node, x: Array, k: Array | None = None) -> Array:
    offset = 0 if k is None else integers(node, k, "the diagonal")[0]
    offset = max(-x.shape[-2], min(offset, x.shape[-1]))
    return (library(x).triu if node.get("upper", 1) else library(x).tril)(x, offset)


@operator("EyeLike")
def _eye_like(node: Node, x: Array) -> Array:
    return jnp.eye(*x.shape, k=node.get("k", 0), dtype=x.dtype)


def _checked(node: Node, shape: list[int] | tuple[int, ...]) -> tuple[int, ...]:
    """A shape that fits into memory: a file may ask for any."""
    if min(shape, default=0) < 0 or math.prod(shape) > 2**26:
        raise unsupported(node, f"a result of shape {tuple(shape)}")
    return tuple(shape)
