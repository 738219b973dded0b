"""Feature networks of the user's own, as ONNX files."""

from pathlib import Path

import jax
import jax.numpy as jnp

from diffcf_jax.errors import UserError
from diffcf_jax.regressors.onnx.load import load_onnx
from diffcf_jax.regressors.onnx.parse import read_model
from diffcf_jax.regressors.preprocess import found_beside, parse_preprocess
from diffcf_jax.regressors.regressor import completed

from .batch import Features, in_batches


def load_onnx_features(folder: Path) -> Features | None:
    """Loads the ONNX file in a folder, whose first output is one vector per image.

    How images are prepared is what the file says (`diffcf.preprocess` in its metadata) or
    preprocessor_config.json or config.json beside it, as for regressors.

    Args:
        folder: with at most one file that ends in .onnx.

    Returns:
        None where there is no such file.

    Raises:
        UserError: there are several, or the file is broken, or does not say how images are
            prepared, or has no vectors.
    """
    files = sorted(folder.glob("*.onnx"))
    if not files:
        return None
    if len(files) > 1:
        raise UserError(f"{folder} has {len(files)} ONNX files: leave one of them there")
    (path,) = files
    outputs = read_model(path).graph.outputs
    model = load_onnx(path, outputs[0].name if outputs else None)
    text = model.hints.get("preprocess")
    prepare = completed(model, parse_preprocess(text) if text else found_beside(path))

    def apply(variables: dict, x: jax.Array) -> jax.Array:
        with jax.default_matmul_precision("highest"):
            z = model.apply(variables, prepare(x))
        if z.size != z.shape[0] * max(z.shape[1:], default=0):
            raise UserError(
                f"{path} returns numbers of shape {z.shape[1:]} for an image: export it with a "
                "vector of features as the first output"
            )
        return z.reshape(z.shape[0], -1).astype(jnp.float32)

    return in_batches(apply, model.variables)
