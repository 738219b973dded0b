"""What a differentiated loop over networks keeps of its forward pass, and what it recomputes.

The modules in `models` name the values that are worth keeping; a policy selects by these names.
"""

from collections.abc import Callable
from typing import Any

import jax

KERNEL = "kernel"  # a kernel as the backward pass reads it: the same in every step of a loop
PRODUCT = "product"  # the result of a convolution or a matrix product
ATTENTION = "attention"  # the result of attention, and what its backward pass needs of the softmax
STATISTICS = "statistics"  # mean and variance of a group norm
SUM = "sum"  # the sum that a residual block ends with


def checkpoint_step(step: Callable[..., Any], remat: bool) -> Callable[..., Any]:
    """Returns the body of a loop with a policy for its backward pass.

    Kernels are kept in any case: they do not change, so they are prepared once, outside the loop.

    Args:
        step: the body of a `jax.lax.scan` or `jax.lax.fori_loop`.
        remat: keep only the input of each step and recompute the rest: the memory of one step, for
            half as much work again. Otherwise the results of convolutions, matrix products,
            attention and residual blocks are kept, and the statistics of norms; the elementwise
            operations between them are recomputed, which costs less than writing them to memory.
    """
    names = (KERNEL,) if remat else (KERNEL, PRODUCT, ATTENTION, STATISTICS, SUM)
    policy = jax.checkpoint_policies.save_only_these_names(*names)
    # In a loop the compiler cannot merge the recomputation with the forward pass.
    return jax.checkpoint(step, policy=policy, prevent_cse=False)
