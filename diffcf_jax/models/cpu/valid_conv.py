"""The convolution without padding, which XLA's CPU compiler (jaxlib 0.10.2) has a slow program for.

With any padding it takes another one, which is two to three times as fast.
"""

from collections.abc import Sequence
from typing import Any

import jax

from diffcf_jax.models.cpu import in_use


def valid_conv(
    x: jax.Array,
    kernel: jax.Array,
    strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    **options: Any,
) -> jax.Array:
    """Returns `jax.lax.conv_general_dilated` of images [B, H, W, C], for `nn.Conv`.

    On a CPU "VALID" becomes a row and a column too many, which are cut off.
    """
    if padding != "VALID" or not in_use():
        return jax.lax.conv_general_dilated(x, kernel, strides, padding, **options)
    margins = [(0, stride) for stride in strides]
    found = jax.lax.conv_general_dilated(x, kernel, strides, margins, **options)
    return found[:, :-1, :-1]
