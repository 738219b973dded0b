"""Networks of TensorFlow.js: their weights, read without it, and the names that these have there.

A JSON file lists name, shape and type of every array, and the files beside it that hold them one
after the other. Arrays of 8 or 16 bits have a scale and a minimum: w = scale q + min.
"""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffcf_jax.errors import UserError
from diffcf_jax.files import inside, read_bytes, read_text, short
from diffcf_jax.jsonfile import parse_json

TFJS_KINDS = ("face-api-age", "face-api-identity", "faceres-age")

# Patterns of the flax path and what the file has in their place, one after the other
_FACE_API = (
    (r"^(entry|middle|exit)_flow_", r"\1_flow/"),
    (r"^fc/kernel$", "fc/age/weights"),
    (r"^fc/bias$", "fc/age/bias"),
    (r"^embedding/kernel$", "fc"),
    (r"scale/scale$", "scale/weights"),
    (r"scale/bias$", "scale/biases"),
    (r"(depth|point)wise/kernel$", r"\1wise_filter"),
    (r"pointwise/bias$", "bias"),
    (r"kernel$", "filters"),
)
_FACERES = (
    (r"^fc/", "age_pred/"),
    (r"^conv_dw_(\d+)/kernel$", r"conv_dw_\1/depthwise_kernel"),
    (r"_bn/scale$", "_bn/batchnorm_1/mul"),
    (r"_bn/bias$", "_bn/batchnorm_1/sub"),
    (r"^(conv1|conv_pw_\d+)/kernel$", r"\1/convolution/merged_input"),
    (r"^(conv1|conv_pw_\d+)/bias$", r"\1_bn/batchnorm_1/sub"),
)
_TYPES = {"float32": "<f4", "int32": "<i4"}
_QUANTISED = {"uint8": "u1", "uint16": "<u2"}


def tfjs_key(kind: str, path: Sequence[str]) -> str:
    """Return the name that a flax variable has in the file.

    Args:
        kind: one of `TFJS_KINDS`.
        path: modules and leaf.
    """
    key = "/".join(path)
    for pattern, name in _FACERES if kind == "faceres-age" else _FACE_API:
        key = re.sub(pattern, name, key)
    return key


def read_tfjs(path: str | Path) -> dict[str, np.ndarray]:
    """Read the arrays of a model of TensorFlow.js, laid out as PyTorch does.

    Args:
        path: a weights manifest, or a model.json with one. The files that it names lie beside it.

    Returns:
        Arrays by name, float32 or int32: convolutions [O, I, H, W], those of each channel by
        itself [C, 1, H, W], linear layers [O, I].

    Raises:
        UserError: a file is missing, damaged, or of another format.
    """
    path = Path(path)
    try:
        groups = _manifest(read_text(path))
        arrays = {}
        for group in groups:
            parts = [read_bytes(inside(path.parent, name), None) for name in group["paths"]]
            arrays |= _split(b"".join(parts), group["weights"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise UserError(
            f"{path} is no weights of TensorFlow.js ({short(str(error))}): give the "
            "weights manifest or model.json, with its .bin beside it."
        ) from None
    return arrays


def _manifest(text: str) -> list[Mapping[str, Any]]:
    if text.lstrip().startswith("["):  # a manifest by itself
        text = f'{{"weightsManifest": {text}}}'
    return parse_json(text)["weightsManifest"]


def _split(data: bytes, weights: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Cut the arrays out of the bytes of a group."""
    arrays, start = {}, 0
    for weight in weights:
        name, shape = str(weight["name"]), weight["shape"]
        if not all(type(n) is int and n >= 0 for n in shape):
            raise ValueError(f"{name} has the shape {shape}")
        scheme = weight.get("quantization")
        types, type_name = (_TYPES, weight["dtype"]) if scheme is None else (
            _QUANTISED, scheme["dtype"]
        )  # fmt: skip
        if type_name not in types:
            raise ValueError(f"{name} is of type {type_name}")
        dtype = np.dtype(types[type_name])
        end = start + math.prod(shape) * dtype.itemsize
        if end > len(data):
            raise ValueError(f"the data end within {name}")
        array = np.frombuffer(data[start:end], dtype).reshape(shape)
        if scheme is not None:
            with np.errstate(over="ignore", invalid="ignore"):  # refused by its name later
                array = (array * float(scheme["scale"]) + float(scheme["min"])).astype(np.float32)
        arrays[name], start = _as_torch(name, array), end
    if start != len(data):
        raise ValueError(f"{len(data) - start} bytes are left over")
    return arrays


def _as_torch(name: str, array: np.ndarray) -> np.ndarray:
    if array.ndim == 4:
        return array.transpose((2, 3, 0, 1) if "depthwise" in name else (3, 2, 0, 1))
    return array.T
