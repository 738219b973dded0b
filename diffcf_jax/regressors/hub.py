"""Models of Hugging Face and timm: their folders, and names that their own libraries fetch.

The weights are read from safetensors and no code of a folder is run.
"""

import dataclasses
import importlib
from pathlib import Path
from typing import Any

from diffcf_jax.errors import UserError
from diffcf_jax.files import short
from diffcf_jax.jsonfile import read_json
from diffcf_jax.regressors.preprocess import Preprocess, found_beside, of_timm
from diffcf_jax.regressors.regressor import Model
from diffcf_jax.regressors.torch import load_module

# Arguments of timm.create_model that read other files.
_READS_FILES = ("cache_dir", "checkpoint_path")


def load_hub(spec: str, preprocess: Preprocess | None) -> Model:
    """Read `hf:NAME`, `timm:NAME`, or a folder that one of the two libraries wrote.

    Args:
        spec: the name or folder; `hf:` takes a folder, too.
        preprocess: as the user gives it; None: that of the model.

    Raises:
        UserError: a library is missing, or there is no such model.
    """
    library, _, name = spec.partition(":")
    if library == "hf":
        return _hugging_face(name, spec, preprocess)
    if library == "timm":
        return _timm(name, spec, preprocess)
    path = Path(spec).expanduser()
    config = read_json(path / "config.json")
    if not any(path.glob("*.safetensors")):
        raise UserError(
            f"{path} has no model.safetensors: save the model again with safe_serialization=True; "
            "pickled weights (.bin, .pt) are not read."
        )
    if "model_type" in config:
        return _hugging_face(str(path), spec, preprocess)
    if "architecture" in config:
        return _timm_folder(path, config, preprocess)
    raise UserError(
        f"{path / 'config.json'} is neither of Hugging Face (model_type) nor of timm "
        "(architecture): give the folder that save_pretrained wrote."
    )


def _hugging_face(name: str, source: str, preprocess: Preprocess | None) -> Model:
    transformers = _library("transformers")
    preprocess = preprocess or _hugging_face_preprocess(name)
    try:
        module, found = transformers.AutoModelForImageClassification.from_pretrained(
            name, use_safetensors=True, trust_remote_code=False, output_loading_info=True
        )
    except Exception as error:  # of many kinds, and long
        raise _cannot_load(source, "transformers", error) from None
    if missing := sorted(found["missing_keys"]):
        raise UserError(
            f"{source} has no weights for {short(missing[0])}: give a model that was trained with "
            "its head."
        )
    return _with_hint(module.float(), source, preprocess)


def _timm(name: str, source: str, preprocess: Preprocess | None) -> Model:
    timm = _library("timm")
    try:
        module = timm.create_model(name, pretrained=True)
    except Exception as error:  # of many kinds
        raise _cannot_load(source, "timm", error) from None
    preprocess = preprocess or of_timm({"pretrained_cfg": module.pretrained_cfg})
    return _with_hint(module, source, preprocess)


def _timm_folder(path: Path, config: dict[str, Any], preprocess: Preprocess | None) -> Model:
    timm, safetensors = _library("timm"), importlib.import_module("safetensors.torch")
    arguments = dict(config.get("model_args") or {})
    refused = [key for key in arguments if key.startswith("pretrained") or key in _READS_FILES]
    if refused:
        raise UserError(f"{path / 'config.json'} has {refused[0]} in model_args: remove it.")
    try:
        module = timm.create_model(
            config["architecture"], **{"num_classes": config["num_classes"], **arguments}
        )
        module.load_state_dict(safetensors.load_file(path / "model.safetensors"))
    except Exception as error:  # of many kinds
        raise _cannot_load(str(path), "timm", error) from None
    return _with_hint(module, str(path), preprocess or found_beside(path))


def _with_hint(module: Any, source: str, preprocess: Preprocess | None) -> Model:
    """A model whose pre-processing is known."""
    if preprocess is None:
        raise UserError(
            f"{source} does not say how images are prepared for it (preprocessor_config.json): "
            "give preprocess, such as imagenet, or 'size=224 mean=0.5 std=0.5'."
        )
    model = load_module(module, source, preprocess)
    return dataclasses.replace(model, hints={"preprocess": str(preprocess) or "none"})


def _hugging_face_preprocess(name: str) -> Preprocess | None:
    hub = importlib.import_module("transformers.utils.hub")
    try:
        return found_beside(Path(hub.cached_file(name, "preprocessor_config.json")))
    except OSError:  # there is none
        return None


def _library(name: str) -> Any:
    try:
        importlib.import_module("torch")
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(
            f"{error.name or name} is missing: pip install 'diffcf_jax[torch]' {name}."
        ) from None


def _cannot_load(name: str, library: str, error: Exception) -> UserError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200].rstrip(".:")
    return UserError(
        f"{name} cannot be read by {library} ({reason}): check the name and the connection, or "
        "give a folder with config.json and model.safetensors."
    )
