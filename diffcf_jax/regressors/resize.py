"""Resizing of images by filters, with and without antialiasing."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

# Radius of each filter, in pixels of the larger image.
_RADIUS = {"box": 0.5, "bilinear": 1.0, "bicubic": 2.0, "lanczos": 3.0}
METHODS = ("nearest", *_RADIUS)


def resize(
    x: Float[Array, "b _ _ c"], height: int, width: int, method: str, antialias: bool = True
) -> Float[Array, "b {height} {width} c"]:
    """Resize images with a filter that is normalised at every pixel and cut off at the border.

    With antialiasing the filter widens when the image shrinks, as in PIL and as in torchvision with
    `antialias=True`. Without it, it is that of torch's `interpolate(align_corners=False)`, where
    the border repeats.

    Args:
        x: images.
        height: rows of the result.
        width: columns of the result.
        method: "nearest", "box", "bilinear", "bicubic" (with antialiasing Keys' a = -0.5, without
            a = -0.75) or "lanczos" (3 lobes).
        antialias: widen the filter where the image shrinks.
    """
    for axis, size in ((1, height), (2, width)):
        if x.shape[axis] == size:
            continue
        weights = jnp.asarray(filter_weights(x.shape[axis], size, method, antialias), x.dtype)
        equation = "ab,ibjc->iajc" if axis == 1 else "ab,ijbc->ijac"
        x = jnp.einsum(equation, weights, x, precision=jax.lax.Precision.HIGHEST)
    return x


def filter_weights(size: int, target: int, method: str, antialias: bool) -> np.ndarray:
    """Return the weight of each pixel for each pixel of the result [target, size]."""
    scale = size / target
    centre = scale * (np.arange(target) + 0.5)
    if method == "nearest":
        weights = np.zeros((target, size))
        weights[np.arange(target), np.floor(centre).astype(int).clip(0, size - 1)] = 1
        return weights
    wide = max(scale, 1.0) if antialias else 1.0
    reach = math.ceil(_RADIUS[method] * wide) + 1
    taps = np.floor(centre).astype(int)[:, None] + np.arange(-reach, reach + 1)
    values = _FILTERS[method]((taps + 0.5 - centre[:, None]) / wide, antialias)
    if antialias:
        values = values * ((taps >= 0) & (taps < size))
    values = values / values.sum(1, keepdims=True)
    weights = np.zeros((target, size))
    rows = np.broadcast_to(np.arange(target)[:, None], taps.shape)
    np.add.at(weights, (rows, taps.clip(0, size - 1)), values)
    return weights


def _box(d: np.ndarray, antialias: bool) -> np.ndarray:
    return ((d > -0.5) & (d <= 0.5)).astype(float)


def _triangle(d: np.ndarray, antialias: bool) -> np.ndarray:
    return np.maximum(0, 1 - np.abs(d))


def _cubic(d: np.ndarray, antialias: bool) -> np.ndarray:
    a, d = -0.5 if antialias else -0.75, np.abs(d)
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0))


def _lanczos(d: np.ndarray, antialias: bool) -> np.ndarray:
    return np.where(np.abs(d) < 3, np.sinc(d) * np.sinc(d / 3), 0)


_FILTERS = {"box": _box, "bilinear": _triangle, "bicubic": _cubic, "lanczos": _lanczos}
