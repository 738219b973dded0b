"""One way in for regressors of all formats."""

import re
from pathlib import Path
from typing import Any

from diffcf_jax.checkpoint.network import REGRESSORS
from diffcf_jax.checkpoint.store import load_network
from diffcf_jax.errors import UserError
from diffcf_jax.files import check_regular_file, short
from diffcf_jax.regressors.function import import_object, load_object
from diffcf_jax.regressors.output import Output, parse_output
from diffcf_jax.regressors.preprocess import Preprocess, found_beside, parse_preprocess
from diffcf_jax.regressors.regressor import Model, Regressor, assemble
from diffcf_jax.units import Unit, unit_of

_OBJECT = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")

_HUBS = ("hf:", "timm:")

_REFUSED = {
    **dict.fromkeys(
        (".pt", ".pth", ".ckpt", ".bin", ".pkl", ".pickle"),
        "may execute code when it is read, or holds weights without their model",
    ),
    ".pt2": "may execute code when PyTorch reads it",
    ".safetensors": "holds weights without their model",
    **dict.fromkeys((".h5", ".hdf5"), "is of Keras 2"),
}


def load_regressor(
    spec: str | Path | Any,
    preprocess: str | Preprocess = "",
    output: str | Output = "",
    unit: Unit | None = None,
) -> Regressor:
    """Read a regressor of any format, differentiable and ready for `Explainer`.

    Args:
        spec: a file (`.onnx`, `.keras`, `.jax`); a network directory of this package; a folder of
            Hugging Face or timm; `hf:NAME` or `timm:NAME` for what their libraries fetch; or
            `package.module:name` for an object in Python, or that object, see `load_object`.
        preprocess: what is done to images [B, H, W, 3] in [0, 1] first, such as "imagenet" or
            "range=255 mean=122.8,117,104.3 std=256"; "": what the file or the files beside it say.
        output: how the outputs become one prediction, such as "expectation=0..80"; "": the only
            number, or what the file says.
        unit: of the predictions, with the mean and spread that the methods normalise them by.

    Raises:
        UserError: the file is missing, broken or of no supported format, or something does not
            fit.
    """
    if isinstance(preprocess, str):
        preprocess = parse_preprocess(preprocess) if preprocess else None
    if isinstance(spec, (str, Path)):
        spec = str(spec)
        model = _read(spec, preprocess, output)
    else:
        model = load_object(spec, type(spec).__name__, preprocess)
    if isinstance(model, Regressor):
        if preprocess or output:
            raise UserError(f"{spec} has its own preprocess and output: leave these options out.")
        return model
    if preprocess is None:
        text = model.hints.get("preprocess", "")
        preprocess = parse_preprocess(text) if text else _beside(model)
    if isinstance(output, str):
        output = parse_output(output or model.hints.get("output", ""))
    return assemble(model, preprocess, output, unit or Unit())


def is_external(spec: str | Path) -> bool:
    """Whether a text names a model of another format or an object, and no network directory."""
    path = Path(spec).expanduser()
    return (
        path.suffix.lower() in (".onnx", ".keras", ".jax")
        or bool(_OBJECT.fullmatch(str(spec)))
        or str(spec).startswith(_HUBS)
        or ((path / "config.json").is_file() and not (path / "network.json").is_file())
    )


def _read(spec: str, preprocess: Preprocess | None, output: str | Output) -> Model | Regressor:
    path = Path(spec).expanduser()
    suffix = path.suffix.lower()
    if (path / "network.json").is_file():
        return _network(spec, path)
    if spec.startswith(_HUBS) or (path / "config.json").is_file():
        from diffcf_jax.regressors.hub import load_hub

        return load_hub(spec, preprocess)
    if suffix == ".onnx":
        from diffcf_jax.regressors.onnx.load import load_onnx

        chosen = parse_output(output) if isinstance(output, str) else output
        return load_onnx(path, chosen.name)
    if suffix == ".keras":
        from diffcf_jax.regressors.keras import load_keras

        check_regular_file(path)
        return load_keras(path)
    if suffix == ".jax":
        from diffcf_jax.regressors.exported import load_exported

        return load_exported(path)
    if suffix in _REFUSED:
        raise UserError(
            f"{spec} {_REFUSED[suffix]}: export the model to ONNX (docs: Your own regressor), or "
            "give a function that builds it as package.module:name."
        )
    if _OBJECT.fullmatch(spec):
        return load_object(import_object(spec), spec, preprocess)
    raise UserError(
        f"{short(spec)} is no regressor: give a network directory, a file ending in .onnx, .keras "
        "or .jax, a folder of Hugging Face or timm, hf:NAME, timm:NAME, or package.module:name."
    )


def _network(spec: str, path: Path) -> Regressor:
    """A network of this package, which has its unit."""
    network = load_network(path)
    if network.kind not in REGRESSORS:
        raise UserError(f"{spec} is a {network.kind}, not a regressor: give another one.")
    size = network.description["image_size"]
    unit = unit_of(network.description, {})
    model = Model(spec, network.module.apply, network.variables, size=(size, size), images=True)
    return assemble(model, None, Output(mean=unit.mean, scale=unit.scale), unit)


def _beside(model: Model) -> Preprocess | None:
    path = Path(model.source)
    return None if model.images or not path.is_file() else found_beside(path)
