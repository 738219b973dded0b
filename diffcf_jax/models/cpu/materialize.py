"""Where the loops that XLA's CPU compiler fuses must end.

It makes a value anew in every loop over pixels that reads it, with all the sums that the value
consists of, and `jax.lax.optimization_barrier` does not keep it from that. A loop does.
"""

import jax
import jax.numpy as jnp

from diffcf_jax.models.cpu import in_use

Array = jax.Array


@jax.custom_vjp
def materialize(x: Array) -> Array:
    """Returns x [B, ...] itself; in a program for a CPU a loop copies it, and its gradient."""
    return _copy(x) if in_use() else x


def _forward(x: Array) -> tuple[Array, None]:
    return materialize(x), None


def _backward(_: None, gradient: Array) -> tuple[Array]:
    return (materialize(gradient),)


materialize.defvjp(_forward, _backward)


def _copy(x: Array) -> Array:
    """Copies in two parts or a few: a loop of one turn would be no loop to the compiler."""
    flat = x.reshape(x.shape[0], -1)
    size = flat.shape[1]
    parts = next((n for n in range(2, size + 1) if size % n == 0), 1)
    width = size // parts

    def copy(i: Array, y: Array) -> Array:
        part = jax.lax.dynamic_slice_in_dim(flat, i * width, width, axis=1)
        return jax.lax.dynamic_update_slice_in_dim(y, part, i * width, axis=1)

    return jax.lax.fori_loop(0, parts, copy, jnp.zeros_like(flat)).reshape(x.shape)
