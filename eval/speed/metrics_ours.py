"""This package's side of `metrics`: the functions that `diffcf evaluate` calls."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from diffcf_jax.checkpoint.convert import import_network
from diffcf_jax.checkpoint.store import save_network
from diffcf_jax.cli import keep_memory
from diffcf_jax.training.frechet import frechet_distance

from ..metrics.batch import in_batches
from ..metrics.distances import kernel_distance
from ..metrics.images import proximity, structural_similarity
from ..metrics.weights import load_networks
from .job import Commands, serve

_FIGURES = {"fid": frechet_distance, "kid": kernel_distance}
_PIXELS = {
    "ssim": lambda _, x, y: structural_similarity(x, y),
    "psnr": lambda _, x, y: proximity(x, y)["psnr"],
}


def prepare(folder: Path) -> Commands:
    """Converts the networks that the other side has written."""
    keep_memory()  # as the command does
    counts = json.loads((folder / "job.json").read_text())["counts"]
    with np.load(folder / "images.npz") as arrays:
        x, y = (arrays[key] / np.float32(255) for key in ("x", "y"))
        features = arrays["features"]
    for path in folder.glob("*.safetensors"):
        kind = "inception" if path.stem == "inception" else "lpips"
        save_network(folder / "networks" / path.stem, *import_network(kind, load_file(path)))
    (folder / "networks").mkdir(exist_ok=True)
    networks = load_networks(folder / "networks")

    def command(name: str, count: int) -> Callable[[], list[float]]:
        if name in _FIGURES:
            return lambda: [_FIGURES[name](*features[:, :count])]
        if name == "inception":
            return lambda: _listed(networks.features[name](x[:count]))
        compare = networks.distances.get(name) or in_batches(_PIXELS[name], {})
        return lambda: _listed(compare(x[:count], y[:count]))

    return {name: command(name, count) for name, count in counts.items()}


def _listed(values: Any) -> list[float]:
    return np.ravel(values).tolist()


if __name__ == "__main__":
    serve(prepare)
