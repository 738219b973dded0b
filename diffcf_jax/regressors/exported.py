"""Functions that `jax.export` has saved, with their derivative."""

import hashlib
from pathlib import Path
from typing import Any

import jax
import jax.export
import jax.numpy as jnp

from diffcf_jax.errors import UserError
from diffcf_jax.files import read_bytes
from diffcf_jax.regressors.regressor import Model


def load_exported(path: str | Path) -> Model:
    """Read what `jax.export.export(f)(images).serialize(vjp_order=1)` made.

    f takes float32 images [b, H, W, 3], with b symbolic (`jax.export.symbolic_shape`).

    Raises:
        UserError: it is no such file, was made for other devices, or has no derivative.
    """
    data = read_bytes(Path(path), limit=None)
    try:
        exported = jax.export.deserialize(bytearray(data))
    except ImportError:
        raise UserError(f"{path} can be read with flatbuffers: pip install flatbuffers.") from None
    except Exception as error:  # the format's reader raises many kinds
        raise UserError(
            f"{path} is not what jax.export saves ({type(error).__name__}): write "
            "jax.export.export(f)(images).serialize(vjp_order=1) to it."
        ) from None
    here = jax.default_backend()
    names = {"gpu": ("cuda", "rocm")}.get(here, (here,))
    if not set(names) & set(exported.platforms):
        raise UserError(
            f"{path} was exported for {', '.join(exported.platforms)}, and JAX runs on {here}: "
            f"export it with platforms=['{names[0]}']."
        )
    if not exported.has_vjp():
        raise UserError(f"{path} has no derivative: save it with serialize(vjp_order=1).")
    if len(exported.in_avals) != 1 or len(exported.out_avals) != 1:
        raise UserError(f"{path} must take images alone and return one array: export it so.")
    shape = exported.in_avals[0].shape
    if len(shape) != 4 or isinstance(shape[0], int):
        raise UserError(
            f"{path} takes an input of shape {shape}: export it for images [b, H, W, 3] of "
            "jax.export.symbolic_shape('b, H, W, 3')."
        )
    size = tuple(shape[1:3]) if all(isinstance(n, int) for n in shape[1:3]) else None
    apply = _differentiable(exported)
    digest = hashlib.blake2b(data, digest_size=16).hexdigest()
    return Model(str(path), lambda _, x: apply(x), {}, size=size, images=True, digest=digest)


def _differentiable(exported: Any) -> Any:
    """The function with its derivative; rows that vmap adds are folded into the batch."""
    value, pull_back = _folding(exported.call), _folding(exported.vjp().call)

    @jax.custom_vjp
    def apply(x: jax.Array) -> jax.Array:
        return value(x)

    def backward(x: jax.Array, g: jax.Array) -> tuple[jax.Array]:
        result = pull_back(x, g)
        return (result[0] if isinstance(result, (tuple, list)) else result,)

    apply.defvjp(lambda x: (value(x), x), backward)
    return apply


def _folding(function: Any) -> Any:
    @jax.custom_batching.custom_vmap
    def call(*inputs: jax.Array) -> Any:
        return function(*inputs)

    @call.def_vmap
    def rule(count: int, batched: list[bool], *inputs: jax.Array) -> tuple[Any, Any]:
        full = [
            x if there else jnp.broadcast_to(x, (count, *x.shape))
            for x, there in zip(inputs, batched, strict=True)
        ]
        out = call(*(x.reshape(-1, *x.shape[2:]) for x in full))
        out = jax.tree.map(lambda y: y.reshape(count, -1, *y.shape[1:]), out)
        return out, jax.tree.map(lambda _: True, out)

    return call
