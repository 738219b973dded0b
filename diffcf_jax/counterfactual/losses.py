"""Distances between a variable and where it started, as terms of the counterfactual loss."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Scalar


def l1(difference: Float[Array, "..."]) -> Scalar:
    """Sum of absolute values, with gradient 0 at 0."""
    return jnp.sum(difference * jnp.sign(difference))  # jnp.abs has gradient 1 there


def l2(difference: Float[Array, "..."]) -> Scalar:
    """Euclidean norm, with gradient 0 (and not NaN) at 0."""
    squared = jnp.sum(jnp.square(difference))
    safe = jnp.where(squared > 0, squared, 1.0)
    return jnp.where(squared > 0, jnp.sqrt(safe), 0.0)


DISTANCES = {"l1": l1, "l2": l2}
