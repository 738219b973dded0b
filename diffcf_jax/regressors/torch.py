"""PyTorch modules: exported to ONNX in memory, or called back from JAX where that fails.

What is exported runs in JAX alone, on every device. What is called back has PyTorch's own value and
gradient, computed on the host: on CPUs and GPUs but not on TPUs, and twice under `jax.checkpoint`.
"""

import dataclasses
import hashlib
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from diffcf_jax.errors import UserError
from diffcf_jax.regressors.onnx.load import load_onnx
from diffcf_jax.regressors.preprocess import Preprocess
from diffcf_jax.regressors.regressor import Model


def load_module(module: Any, source: str, preprocess: Preprocess | None = None) -> Model:
    """Return a model of a `torch.nn.Module`, or of what `torch.export` made of one.

    The module is put into evaluation mode. It takes images [B, C, H, W] alone and returns a tensor,
    or an object of Hugging Face with `logits`.

    Args:
        module: the module.
        source: its name for messages.
        preprocess: what makes its input. The module is exported for that size; without a size it is
            called back.
    """
    module = _in_evaluation(module)
    digest = _digest(module)
    size = preprocess and (preprocess.crop or preprocess.size)
    if size:
        try:
            exported = _export(module, preprocess, size)
            native = ("PyTorch", lambda x: _predict(module, x))
            return dataclasses.replace(exported, source=source, digest=digest, native=native)
        except Exception as error:  # the exporter raises many kinds
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
            logging.warning(
                "%s cannot be exported to ONNX (%s): PyTorch is called back instead.",
                source, reason,
            )  # fmt: skip
    else:
        logging.warning(
            "%s is called back by JAX: give preprocess a size, and it is read into JAX.", source
        )
    apply = callback(module)
    return Model(source, lambda _, x: apply(x), {}, layout="nchw", digest=digest)


def _in_evaluation(module: Any) -> Any:
    import torch

    if isinstance(module, torch.export.ExportedProgram):
        return module.module()  # as it was exported; it has no other mode
    try:
        return module.eval()
    except NotImplementedError:  # such a module already
        return module


def _digest(module: Any) -> str:
    """A hash of the weights and of which layers there are."""
    digest = hashlib.blake2b(digest_size=16)
    for name, part in module.named_modules():
        digest.update(f"{name} {type(part).__qualname__}".encode())
    for name, value in module.state_dict().items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(np.ascontiguousarray(value.detach().cpu().float().numpy()).tobytes())
    return digest.hexdigest()


def _export(module: Any, preprocess: Preprocess, size: tuple[int, int]) -> Model:
    import torch

    class Tensors(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = module
            self.training = False

        def forward(self, x: Any) -> Any:
            return _tensor(self.module(x))

    channels = 1 if preprocess.channels == "grey" else 3
    shape = (channels, *size) if preprocess.layout != "nhwc" else (*size, channels)
    parameter = next(module.parameters(), torch.zeros(()))
    example = torch.zeros((2, *shape), device=parameter.device)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's own, about its inside
        path = Path(folder) / "model.onnx"
        torch.onnx.export(
            Tensors(), (example,), str(path), dynamo=True, external_data=False, verbose=False,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
        )  # fmt: skip
        return load_onnx(path)


def _predict(module: Any, x: np.ndarray) -> np.ndarray:
    """What PyTorch itself computes, on the host."""
    import torch

    device = next(module.parameters(), torch.zeros(())).device
    with torch.no_grad():
        return _tensor(module(torch.tensor(x, device=device))).float().cpu().numpy()


def _tensor(result: Any) -> Any:
    """The tensor that a module returns, which Hugging Face calls `logits`."""
    import torch

    result = getattr(result, "logits", result)
    if not isinstance(result, torch.Tensor):
        raise UserError(
            f"The PyTorch module returns {type(result).__name__}; wrap it in one that returns a "
            "tensor [B, N]."
        )
    return result


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
            result = _tensor(module(given))
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
