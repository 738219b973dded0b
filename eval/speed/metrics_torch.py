"""torchmetrics' side of `metrics`: draws the weights of each network and computes with them."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from safetensors.numpy import save_file
from torchmetrics.functional.image import (
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)
from torchmetrics.functional.image.lpips import _NoTrainLpips
from torchmetrics.image.fid import NoTrainInceptionV3, _compute_fid
from torchmetrics.image.kid import poly_mmd

from .job import Commands, serve

_CLASSIFIERS = {"lpips": "alex", "lpips_vgg": "vgg", "lpips_squeeze": "squeeze"}


def prepare(folder: Path) -> Commands:
    """Makes what the job asks for; writes each network's weights as NAME.safetensors."""
    job = json.loads((folder / "job.json").read_text())
    torch.set_num_threads(job["threads"])
    with np.load(folder / "images.npz") as arrays:
        x, y = (torch.from_numpy(arrays[key]).permute(0, 3, 1, 2) for key in ("x", "y"))
        features = [torch.from_numpy(part) for part in arrays["features"]]

    def command(name: str, count: int) -> Callable[[], list[float]]:
        if name in ("fid", "kid"):
            a, b = (part[:count].double() for part in features)
            return lambda: [float((_fid if name == "fid" else poly_mmd)(a, b))]
        a, b = x[:count], y[:count]
        if name == "inception":
            network = _inception()
            _draw(network, folder / f"{name}.safetensors", lambda key: key)
            return lambda: _joined(network(part) for part in a.split(16))
        a, b = a / 255, b / 255
        if name in _CLASSIFIERS:
            network = _NoTrainLpips(pretrained=False, net=_CLASSIFIERS[name], pnet_rand=True)
            _draw(network, folder / f"{name}.safetensors", _as_published)
            pairs = list(zip(a.split(8), b.split(8), strict=True))
            return lambda: _joined(network(*pair, normalize=True) for pair in pairs)
        if name == "ssim":
            return lambda: _joined(
                [structural_similarity_index_measure(b, a, data_range=1.0, reduction="none")]
            )
        return lambda: _joined(
            [peak_signal_noise_ratio(b, a, data_range=1.0, reduction="none", dim=(1, 2, 3))]
        )

    with torch.inference_mode():
        commands = {name: command(name, count) for name, count in job["counts"].items()}
    return {name: torch.inference_mode()(call) for name, call in commands.items()}


def _fid(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    moments = (moment for part in (a, b) for moment in (part.mean(0), part.T.cov()))
    return _compute_fid(*moments)


def _inception() -> NoTrainInceptionV3:
    """The network without the file of its weights, which are drawn."""
    with (
        mock.patch("torch.load"),
        mock.patch.object(NoTrainInceptionV3, "load_state_dict"),
    ):
        return NoTrainInceptionV3("inception-v3-compat", ["2048"], "drawn", antialias=False)


def _draw(network: torch.nn.Module, path: Path, rename: Callable[[str], str]) -> None:
    """Draws weights with which activations stay in range, and writes them as published files."""
    rng, written = np.random.default_rng(0), {}
    for key, value in network.state_dict().items():
        if value.dtype != torch.float32 or key.startswith(("lins.", "scaling_layer.")):
            continue  # counters, the same layers once more, and constants
        shape, name = tuple(value.shape), rename(key)
        if len(shape) > 1:
            drawn = rng.standard_normal(shape, np.float32)
            drawn *= np.float32(np.sqrt(2 / np.prod(shape[1:])))
            drawn = np.abs(drawn) if name.startswith("lin") else drawn
        else:
            drawn = np.full(shape, key.endswith(("bn.weight", "running_var")), np.float32)
        value.copy_(torch.from_numpy(drawn))
        written[name] = drawn
    save_file(written, path)


def _as_published(key: str) -> str:
    """`net.slice2.3.weight` is `features.3.weight` of torchvision."""
    return re.sub(r"^net\.(slice\d|slices\.\d)\.", "features.", key)


def _joined(parts: Any) -> list[float]:
    return torch.cat([part.reshape(-1) for part in parts]).tolist()


if __name__ == "__main__":
    serve(prepare)
