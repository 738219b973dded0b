"""Differentiable resizes that equal PyTorch's, which `jax.image.resize` does not."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def resize_bilinear(
    x: Float[Array, "b _ _ c"], height: int, width: int
) -> Float[Array, "b {height} {width} c"]:
    """Resize with a triangle filter that widens when it shrinks the image (antialias=True).

    Args:
        x: images.
        height: rows of the result.
        width: columns of the result.

    Returns:
        Images of x's type.
    """
    return _resize(x, _triangle_weights(x.shape[1], height), _triangle_weights(x.shape[2], width))


def resize_bicubic(
    x: Float[Array, "b _ _ c"], height: int, width: int
) -> Float[Array, "b {height} {width} c"]:
    """Resize with Keys' cubic filter, a = -0.75, without antialiasing; overshoots are kept.

    Args:
        x: images.
        height: rows of the result.
        width: columns of the result.

    Returns:
        Images of x's type.
    """
    return _resize(x, _cubic_weights(x.shape[1], height), _cubic_weights(x.shape[2], width))


def resize_tensorflow1(
    x: Float[Array, "b _ _ c"], height: int, width: int
) -> Float[Array, "b {height} {width} c"]:
    """Resize as TensorFlow 1 did: linear between pixels whose corners, not centres, are aligned.

    Row i of the result lies at i * rows / height of the image, without antialiasing.

    Args:
        x: images.
        height: rows of the result.
        width: columns of the result.

    Returns:
        Images of x's type.
    """
    return _resize(x, _corner_weights(x.shape[1], height), _corner_weights(x.shape[2], width))


def _resize(
    x: Float[Array, "b h w c"], rows: Float[np.ndarray, "u h"], columns: Float[np.ndarray, "v w"]
) -> Float[Array, "b u v c"]:
    """Apply a weight matrix to each image axis."""
    einsum = partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)
    x = einsum("vw,bhwc->bhvc", jnp.asarray(columns, x.dtype), x)
    return einsum("uh,bhvc->buvc", jnp.asarray(rows, x.dtype), x)


def _triangle_weights(size: int, target: int) -> np.ndarray:
    """Weights [target, size] of the antialiased triangle filter, cut at the border."""
    scale = size / target
    centre = scale * (np.arange(target)[:, None] + 0.5)
    distance = np.abs(np.arange(size) + 0.5 - centre) / max(scale, 1.0)
    weights = np.maximum(0.0, 1.0 - distance)
    return weights / weights.sum(axis=1, keepdims=True)


def _corner_weights(size: int, target: int) -> np.ndarray:
    """Weights [target, size] of linear interpolation at i * size / target; the end repeats."""
    position = np.arange(target) * (size / target)
    low = np.floor(position).astype(int)
    weights = np.zeros((target, size))
    np.add.at(weights, (np.arange(target), low), 1 - (position - low))
    np.add.at(weights, (np.arange(target), np.minimum(low + 1, size - 1)), position - low)
    return weights


def _cubic_weights(size: int, target: int, a: float = -0.75) -> np.ndarray:
    """Weights [target, size] of the cubic filter; taps outside repeat the border pixel."""
    position = size / target * (np.arange(target) + 0.5) - 0.5
    weights = np.zeros((target, size))
    for tap in range(-1, 3):
        index = np.floor(position).astype(int) + tap
        d = np.abs(position - index)
        near = ((a + 2) * d - (a + 3)) * d * d + 1
        far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
        w = np.where(d <= 1, near, far)
        np.add.at(weights, (np.arange(target), np.clip(index, 0, size - 1)), w)
    return weights
