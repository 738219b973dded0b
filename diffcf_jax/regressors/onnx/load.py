"""ONNX files as models: which input is the image, which output the prediction."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from diffcf_jax.errors import UserError
from diffcf_jax.regressors.onnx.graph import Program, as_arrays, compile_graph
from diffcf_jax.regressors.onnx.model import Model as OnnxModel
from diffcf_jax.regressors.onnx.model import Value
from diffcf_jax.regressors.onnx.parse import map_file, read_model
from diffcf_jax.regressors.regressor import Model

_PREFIX = "diffcf."  # of the keys in the file's metadata


def load_onnx(path: str | Path, output: str | None = None, size: int = 224) -> Model:
    """Read a model from an ONNX file; nothing in the file is executed.

    Args:
        path: of the file.
        output: name of the output; None: its only one.
        size: of images to try the model with where it takes any size.

    Raises:
        UserError: the file is broken, has an operator that is not supported, no image as its only
            input, or several outputs of which none is chosen.
    """
    path = Path(path)
    model = read_model(path)
    image = _image(path, model)
    name = _output(path, model, output)
    program = compile_graph(model, name)
    layout, channels, size_of = _layout(path, image)
    variables = as_arrays(program.variables)
    height, width = size_of or (size, size)
    shape = (channels or 3, height, width) if layout == "nchw" else (height, width, channels or 3)
    return Model(
        source=str(path),
        apply=_batched(program, variables, image, shape),
        variables=variables,
        layout=layout,
        size=size_of,
        channels=channels,
        probabilities=bool(program.nodes) and program.nodes[-1].op == "Softmax",
        hints={
            key.removeprefix(_PREFIX): value
            for key, value in model.metadata.items()
            if key.startswith(_PREFIX)
        },
        digest=hashlib.blake2b(map_file(path), digest_size=16).hexdigest(),
    )


def _image(path: Path, model: OnnxModel) -> Value:
    inputs = model.graph.inputs
    if len(inputs) != 1:
        names = ", ".join(value.name for value in inputs) or "none"
        raise UserError(
            f"{path} has the inputs {names}; a regressor must take images alone: export it with "
            "one input."
        )
    image = inputs[0]
    if image.dtype is None or not jnp.issubdtype(image.dtype, jnp.floating):
        raise UserError(
            f"{path} takes images of type {image.dtype}, through which there is no gradient: "
            "export it with float32 images, without the first conversion."
        )
    if image.shape is not None and len(image.shape) != 4:
        raise UserError(
            f"{path} takes an input of shape {image.shape}, not images [B, C, H, W] or "
            "[B, H, W, C]: export a model of images."
        )
    return image


def _output(path: Path, model: OnnxModel, name: str | None) -> str:
    names = [value.name for value in model.graph.outputs]
    if name is None and len(names) != 1:
        raise UserError(
            f"{path} has the outputs {', '.join(names) or 'none'}: choose one with name=... in "
            "output."
        )
    if name is not None and name not in names:
        raise UserError(f"{path} has no output {name}: choose one of {', '.join(names)}.")
    return names[0] if name is None else name


def _layout(path: Path, image: Value) -> tuple[str, int | None, tuple[int, int] | None]:
    """Layout, channels and (height, width) of the image input."""
    shape = image.shape or (None,) * 4
    if shape[1] not in (1, 3) and shape[3] in (1, 3):
        layout, (height, width, channels) = "nhwc", shape[1:]
    else:
        layout, (channels, height, width) = "nchw", shape[1:]
    if channels not in (None, 1, 3):
        raise UserError(f"{path} takes images of {channels} channels; it must take 1 or 3.")
    return layout, channels, None if height is None or width is None else (height, width)


def _batched(
    program: Program, variables: Any, image: Value, shape: tuple[int, ...]
) -> Callable[[Any, jax.Array], jax.Array]:
    """The program for any number of images: one by one, where the file fixes their number."""

    def together(variables: Any, x: jax.Array) -> jax.Array:
        return program(variables, x.astype(image.dtype))

    def one_by_one(variables: Any, x: jax.Array) -> jax.Array:
        return jax.vmap(lambda row: together(variables, row[None])[0])(x)

    def works(apply: Callable[..., jax.Array], count: int) -> bool:
        x = jax.ShapeDtypeStruct((count, *shape), jnp.float32)
        out = jax.eval_shape(apply, variables, x)
        if not jnp.issubdtype(out.dtype, jnp.floating):
            raise UserError(
                f"The output {program.output} has the type {out.dtype}, of which there is no "
                "gradient: choose another output, such as the one before an ArgMax."
            )
        return out.ndim > 0 and out.shape[0] == count

    count = image.shape[0] if image.shape else None
    if count is None:
        try:
            if works(together, 2):
                return together
        except UserError:  # some exporters fix the number inside
            pass
    elif count != 1:
        raise UserError(
            f"The ONNX file takes {count} images at a time: export it for one image, or for any "
            "number of them."
        )
    if not works(together, 1):
        raise UserError(
            f"The output {program.output} is not one row per image: choose another output."
        )
    return one_by_one
