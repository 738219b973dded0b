"""Keras 3 models on the JAX backend."""

import importlib
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from diffcf_jax.errors import UserError
from diffcf_jax.regressors.regressor import Model


def load_keras(path: str | Path) -> Model:
    """Read a `.keras` file in safe mode, which refuses layers with code of their own.

    Raises:
        UserError: Keras is missing or runs on another backend, or the file is refused.
    """
    keras = _keras()
    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises many kinds
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200].rstrip(".")
        raise UserError(
            f"cannot read {path} ({reason}): save it with Keras 3 as .keras, without Lambda or "
            "custom layers, or give the model as package.module:name."
        ) from None
    return load_keras_model(model, str(path))


def load_keras_model(model: Any, source: str) -> Model:
    """Return a model of a Keras model of images [B, H, W, C].

    Raises:
        UserError: Keras runs on another backend, or the model has not exactly one input and output.
    """
    _keras()
    if len(model.inputs or ()) != 1 or len(model.outputs or ()) != 1:
        raise UserError(
            f"{source} has {len(model.inputs or ())} inputs and {len(model.outputs or ())} outputs:"
            " make a keras.Model of one image input and one output of it."
        )
    _, height, width, channels = model.inputs[0].shape
    variables = (
        [variable.value for variable in model.trainable_variables],
        [variable.value for variable in model.non_trainable_variables],
    )

    def apply(variables: Any, x: Any) -> Any:
        return model.stateless_call(*variables, x, training=False)[0]

    activation = getattr(getattr(model.layers[-1], "activation", None), "__name__", "")
    return Model(
        source=source,
        apply=apply,
        variables=variables,
        layout="nhwc",
        size=None if height is None or width is None else (height, width),
        channels=channels,
        probabilities=activation == "softmax",
        native=("Keras", lambda x: np.asarray(model.predict(x, verbose=0))),
    )


def _keras() -> Any:
    if "keras" not in sys.modules:
        os.environ["KERAS_BACKEND"] = "jax"
    try:
        keras = importlib.import_module("keras")
    except ImportError:
        raise UserError("Keras is missing: pip install 'diffcf_jax[keras]'.") from None
    if keras.backend.backend() != "jax":
        raise UserError(
            f"Keras runs on {keras.backend.backend()}: set KERAS_BACKEND=jax before it is imported."
        )
    return keras
