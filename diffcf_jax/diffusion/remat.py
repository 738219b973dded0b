"""What the backward pass through a denoising chain computes again."""

from collections.abc import Callable
from typing import Any

import jax
from jax.extend.core import Primitive


def checkpoint_step(step: Callable[..., Any], remat: bool) -> Callable[..., Any]:
    """Prepares one step of a `jax.lax.scan` for the backward pass.

    The kernels that `models.layers.same_conv` flips are kept in any case: they are the same in
    every step, so that the loop gets them from outside.

    Args:
        step: the body of the scan.
        remat: keep the step's input alone and compute all of it again: the memory of one step,
            for half as much work again. Otherwise the results of convolutions, matrix products
            and attention are kept, the sums that blocks end with, and the statistics of norms.
            What lies between them is computed again even then: that costs less than writing it
            to memory.
    """
    kept = _flipped_kernels if remat else _products
    # A scan keeps the compiler from merging the second computation with the first.
    return jax.checkpoint(step, policy=kept, prevent_cse=False)


# Names that `models` gives
_flipped_kernels = jax.checkpoint_policies.save_only_these_names("flipped_kernel")
_named = jax.checkpoint_policies.save_only_these_names(
    "flipped_kernel", "attention", "statistics", "sum"
)


def _products(primitive: Primitive, *avals: Any, **params: Any) -> bool:
    if primitive.name == "dot_general":
        _, (batch, _) = params["dimension_numbers"]
        return not batch  # the others are within attention, of which the result is kept
    return primitive.name == "conv_general_dilated" or _named(primitive, *avals, **params)
