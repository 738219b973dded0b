"""Resizing, as a matrix per axis that is known while the program is traced."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from diffcf_jax.regressors.onnx.model import Node
from diffcf_jax.regressors.onnx.table import Array, axes_of, operator, static, unsupported


@operator("Upsample")
def _upsample(node: Node, x: Array, scales: Array | None = None) -> Array:
    """Resize as it was before opset 10: positions are multiplied by the scale."""
    given = node.get("scales") if scales is None else static(node, scales, "the scale")
    sizes = [math.floor(size * scale) for size, scale in zip(x.shape, given, strict=True)]
    return _resize_axes(node, x, range(x.ndim), sizes, given, "asymmetric", "floor")


@operator("Resize")
def _resize(
    node: Node, x: Array, roi: Array | None = None, scales: Array | None = None,
    sizes: Array | None = None,
) -> Array:  # fmt: skip
    if node.opset < 11:  # inputs are x and scales
        return _upsample(node, x, roi)
    axes = axes_of(node, None, x.ndim) or tuple(range(x.ndim))
    old = [x.shape[axis] for axis in axes]
    if sizes is not None and np.size(sizes):
        new = [int(size) for size in static(node, sizes, "the size")]
        factors = [b / a for a, b in zip(old, new, strict=True)]
        policy = node.get("keep_aspect_ratio_policy", "stretch")
        if policy != "stretch":
            factor = min(factors) if policy == "not_larger" else max(factors)
            factors = [factor] * len(axes)
            new = [math.floor(size * factor + 0.5) for size in old]
    else:
        factors = [float(scale) for scale in static(node, scales, "the scale")]
        new = [math.floor(a * b) for a, b in zip(old, factors, strict=True)]
    mode = node.get("coordinate_transformation_mode", "half_pixel")
    if mode == "tf_crop_and_resize":
        raise unsupported(node, f"coordinate_transformation_mode={mode}")
    return _resize_axes(
        node, x, axes, new, factors, mode, node.get("nearest_mode", "round_prefer_floor")
    )


def _resize_axes(
    node: Node, x: Array, axes: Sequence[int], sizes: Sequence[int], factors: Sequence[float],
    mode: str, rounding: str,
) -> Array:  # fmt: skip
    kind = node.get("mode", "nearest")
    if min(sizes) < 1 or math.prod(sizes) > 2**26:
        raise unsupported(node, f"a result of shape {list(sizes)}")
    x = jnp.asarray(x)
    for axis, size, factor in zip(axes, sizes, factors, strict=True):
        old = x.shape[axis]
        if old == size and factor == 1:
            continue
        position = _positions(mode, old, size, factor)
        if kind == "nearest":
            x = jnp.take(x, _nearest(position, rounding, old), axis)
            continue
        weights = _weights(node, kind, position, old, factor).astype(x.dtype)
        moved = jnp.einsum(
            "...a,ba->...b", jnp.moveaxis(x, axis, -1), weights,
            precision=jax.lax.Precision.HIGHEST,
        )  # fmt: skip
        x = jnp.moveaxis(moved, -1, axis)
    return x


def _positions(mode: str, old: int, new: int, factor: float) -> np.ndarray:
    """Where the pixels of the result lie in the image, in its pixels [new]."""
    i = np.arange(new, dtype=np.float64)
    if mode == "asymmetric":
        return i / factor
    if mode == "align_corners":
        last = factor * old - 1
        return i * (old - 1) / last if last > 0 else 0 * i
    if mode == "pytorch_half_pixel" and new == 1:
        return 0 * i
    if mode == "half_pixel_symmetric":
        adjusted = new / (factor * old)
        return old / 2 * (1 - adjusted) + (i + 0.5) / factor - 0.5
    return (i + 0.5) / factor - 0.5


def _nearest(position: np.ndarray, rounding: str, size: int) -> np.ndarray:
    position = position.astype(np.float32)
    index = {
        "floor": np.floor, "ceil": np.ceil, "round_prefer_floor": lambda p: np.ceil(p - 0.5),
        "round_prefer_ceil": lambda p: np.floor(p + 0.5),
    }[rounding](position)  # fmt: skip
    return np.clip(index.astype(int), 0, size - 1)


def _weights(node: Node, kind: str, position: np.ndarray, size: int, factor: float) -> np.ndarray:
    """The weight of every pixel for every pixel of the result [new, size]."""
    shrink = min(1.0, factor) if node.get("antialias", 0) else 1.0
    reach = {"linear": 1.0, "cubic": 2.0}[kind] / shrink
    taps = np.floor(position)[:, None].astype(int) + np.arange(
        -math.ceil(reach) + 1, math.ceil(reach) + 1
    )
    distance = np.abs(position[:, None] - taps) * shrink
    if kind == "linear":
        values = np.maximum(0, 1 - distance)
    else:
        a = node.get("cubic_coeff_a", -0.75)
        near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
        far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
        values = np.where(distance <= 1, near, np.where(distance < 2, far, 0))
    inside = (taps >= 0) & (taps < size)
    # Else the border repeats, also with antialias, where PyTorch and PIL cut the filter off.
    if node.get("exclude_outside", 0):
        values = values * inside
    values = values / values.sum(1, keepdims=True)
    weights = np.zeros((len(position), size))
    rows = np.broadcast_to(np.arange(len(position))[:, None], taps.shape)
    np.add.at(weights, (rows, np.clip(taps, 0, size - 1)), values)
    return weights
