"""PyTorch modules, called back from JAX: for what cannot be exported to ONNX.

Value and gradient are PyTorch's own. They are computed on the host, so that this works on CPUs and
GPUs but not on TPUs, and under `jax.checkpoint` the module runs twice.
"""

import hashlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffcf_jax.errors import UserError
from diffcf_jax.regressors.regressor import Model


def load_module(module: Any, source: str) -> Model:
    """Return a model of a `torch.nn.Module` that takes images [B, C, H, W].

    The module is put into evaluation mode.
    """
    module = module.eval()
    digest = hashlib.blake2b(digest_size=16)
    for name, value in module.state_dict().items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(np.ascontiguousarray(value.detach().cpu().float().numpy()).tobytes())
    apply = callback(module)
    return Model(source, lambda _, x: apply(x), {}, layout="nchw", digest=digest.hexdigest())


def callback(module: Any) -> Callable[[jax.Array], jax.Array]:
    """Return a differentiable function of JAX, images [B, C, H, W] -> outputs, that calls a module.

    Raises:
        UserError: when called, the module does not return one tensor.
    """
    import torch

    parameter = next(module.parameters(), torch.zeros(()))
    shapes: dict[tuple[int, ...], tuple[int, ...]] = {}

    def run(x: np.ndarray, gradient: bool) -> tuple[Any, Any]:
        # Leading axes that vmap adds are rows of the batch.
        rows = np.array(x, np.float32).reshape(-1, *x.shape[-3:])
        with torch.set_grad_enabled(gradient):
            given = torch.from_numpy(rows).to(parameter.device).requires_grad_(gradient)
            result = module(given)
        result = getattr(result, "logits", result)
        if not isinstance(result, torch.Tensor):
            raise UserError(
                f"The PyTorch module returns {type(result).__name__}; wrap it in one that returns "
                "a tensor [B, N]."
            )
        return given, result

    def value(x: np.ndarray) -> np.ndarray:
        result = run(x, False)[1].float().cpu().numpy()
        return result.reshape(*x.shape[:-3], *result.shape[1:])

    def pull_back(x: np.ndarray, g: np.ndarray) -> np.ndarray:
        given, result = run(x, True)
        weights = torch.from_numpy(np.array(g, np.float32)).to(result.device).reshape(result.shape)
        (gradient,) = torch.autograd.grad(result, given, weights.to(result.dtype))
        return gradient.float().cpu().numpy().reshape(x.shape)

    def row_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
        if shape not in shapes:
            shapes[shape] = value(np.zeros((1, *shape), np.float32)).shape[1:]
        return shapes[shape]

    def call(x: jax.Array) -> jax.Array:
        out = jax.ShapeDtypeStruct((x.shape[0], *row_shape(x.shape[1:])), jnp.float32)
        return jax.pure_callback(value, out, x, vmap_method="expand_dims")

    @jax.custom_vjp
    def apply(x: jax.Array) -> jax.Array:
        return call(x)

    def backward(x: jax.Array, g: jax.Array) -> tuple[jax.Array]:
        out = jax.ShapeDtypeStruct(x.shape, jnp.float32)
        return (jax.pure_callback(pull_back, out, x, g, vmap_method="broadcast_all"),)

    apply.defvjp(lambda x: (call(x), x), backward)
    return apply
