"""What the passes through a denoising chain keep and what they compute again."""

from collections.abc import Callable
from typing import Any

import jax


def checkpoint_step(step: Callable[..., Any], remat: bool) -> Callable[..., Any]:
    """Prepares one step of a `jax.lax.scan` for the backward pass.

    The kernels that `models.cpu.same_conv` flips and transforms are kept in any case: they are
    the same in every step, so that the loop gets them from outside.

    Args:
        step: the body of the scan.
        remat: keep the step's input alone and compute all of it again: the memory of one step,
            for half as much work again. Otherwise the results of convolutions, matrix products
            and attention are kept, the sums that blocks end with, and the statistics of norms.
            What lies between them is computed again even then: that costs less than writing it
            to memory.
    """
    kept = ("kernel",) if remat else ("kernel", "product", "attention", "statistics", "sum")
    policy = jax.checkpoint_policies.save_only_these_names(*kept)  # names that `models` gives
    # A scan keeps the compiler from merging the second computation with the first.
    return jax.checkpoint(step, policy=policy, prevent_cse=False)


def without_gradient(chain: Callable[[Any], Any], x: Any) -> Any:
    """Returns `chain(x)` where nobody asks for its gradient.

    It is the forward pass of a gradient whose backward pass is dropped, because there the loop gets
    its kernels transformed; a loop without a gradient has plain convolutions.

    Args:
        chain: with a `jax.lax.scan` of checkpointed steps.
        x: its argument.
    """
    return jax.vjp(chain, x)[0]
