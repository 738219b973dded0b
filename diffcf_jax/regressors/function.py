"""Regressors that are Python objects, named as `package.module:name`."""

import importlib
import inspect
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from diffcf_jax.errors import UserError
from diffcf_jax.regressors.preprocess import Preprocess
from diffcf_jax.regressors.regressor import Model


def import_object(spec: str) -> Any:
    """Import `package.module:name`, from the current directory as well.

    Raises:
        UserError: there is no such module or name, or importing it fails.
    """
    module, _, name = spec.partition(":")
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        value = importlib.import_module(module)
        for part in name.split("."):
            value = getattr(value, part)
    except Exception as error:  # the user's own code may raise anything
        raise UserError(
            f"{spec} cannot be imported from {here} ({type(error).__name__}: {error}): check the "
            "names and that python finds the module."
        ) from error
    finally:
        sys.path.remove(here)
    return value


def load_object(value: Any, source: str, preprocess: Preprocess | None = None) -> Model:
    """Return a model of an object of JAX, PyTorch or Keras.

    Args:
        value: a function images [B, H, W, 3] -> outputs; `(apply, variables)`; `(module,
            variables)` of Flax linen or Haiku; a module of Flax NNX or Equinox that takes a batch;
            a module of PyTorch, or what `torch.export` made of one; a model of Keras; or a function
            without arguments that returns one of these.
        source: its name for messages.
        preprocess: as the user gives it, for which a module of PyTorch is exported.

    Raises:
        UserError: it is none of these.
    """
    if _is_a(value, "torch", "nn.Module") or _is_a(value, "torch", "export.ExportedProgram"):
        from diffcf_jax.regressors.torch import load_module

        return load_module(value, source, preprocess)
    if _is_a(value, "keras", "Model"):
        from diffcf_jax.regressors.keras import load_keras_model

        return load_keras_model(value, source)
    if _is_a(value, "flax.nnx", "Module"):
        return _nnx(value, source)
    if isinstance(value, tuple) and len(value) == 2:
        function = getattr(value[0], "apply", value[0])
        if callable(function):
            return Model(source, function, value[1], images=True)
    if callable(value) and not inspect.isclass(value):
        if _takes_nothing(value):
            return load_object(value(), source, preprocess)
        return _callable(value, source)
    raise UserError(
        f"{source} is of type {type(value).__name__}; it must be a function of images, (apply, "
        "variables), a module, or a function without arguments that returns one of these."
    )


def _callable(value: Any, source: str) -> Model:
    """A function, or a tree of arrays that can be called, such as a module of Equinox."""
    leaves, tree = jax.tree.flatten(value)
    if len(leaves) == 1 and leaves[0] is value:
        return Model(source, lambda _, x: value(x), {}, images=True)
    arrays = [leaf if _is_array(leaf) else None for leaf in leaves]

    def call(variables: Any, x: jax.Array) -> jax.Array:
        rest = [old if new is None else new for old, new in zip(leaves, variables, strict=True)]
        return jax.tree.unflatten(tree, rest)(x)

    return Model(source, call, arrays, images=True)


def _nnx(module: Any, source: str) -> Model:
    from flax import nnx

    module.eval()
    graph, state = nnx.split(module)
    return Model(source, lambda state, x: nnx.merge(graph, state)(x), state, images=True)


def _is_a(value: Any, package: str, name: str) -> bool:
    """Whether a value is of a class of a package; if so, the package has been imported."""
    found: Any = sys.modules.get(package)
    for part in name.split("."):
        found = getattr(found, part, None)
    return inspect.isclass(found) and isinstance(value, found)


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) or hasattr(leaf, "__array__") and jnp.ndim(leaf) > 0


def _takes_nothing(value: Any) -> bool:
    try:
        parameters = inspect.signature(value).parameters.values()
    except (TypeError, ValueError):
        return False
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return all(p.default is not p.empty or p.kind in kinds for p in parameters) and not any(
        p.kind == inspect.Parameter.VAR_POSITIONAL for p in parameters
    )
