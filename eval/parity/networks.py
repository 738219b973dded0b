"""The networks of the recorded vectors: the originals' weights in this package's modules."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffcf_jax.checkpoint.convert import import_network
from diffcf_jax.checkpoint.network import Network, build_module
from diffcf_jax.models.layers import timestep_embedding

from .golden import Golden


def load_original(
    golden: Golden, path: str, kind: str, flags: Mapping[str, Any] | None = None
) -> Network:
    """Imports the weights of an original in the working precision.

    Args:
        golden: whose precision is taken, and whose folder the path starts from.
        path: of weights.npz.
        kind: as in `diffcf_jax.checkpoint.convert`.
        flags: the original's flags.
    """
    with np.load(golden.folder / path) as arrays:
        state_dict = {name: arrays[name] for name in arrays.files}
    description, variables = import_network(kind, state_dict, flags, path)
    variables = jax.tree.map(lambda leaf: jnp.asarray(leaf, golden.dtype), variables)
    return Network(description, build_module(description), variables)


def load_regressor(golden: Golden, path: str) -> Network:
    """Imports a regressor: a ResNet if it has `fc`, else a DenseNet."""
    with np.load(golden.folder / path) as arrays:
        resnet = any(name.endswith("fc.weight") for name in arrays.files)
    return load_original(golden, path, "resnet-regressor" if resnet else "densenet-regressor")


def compare_frequencies(golden: Golden, channels: int) -> None:
    """Compares the frequencies of the timestep embedding, read off its values at t = 1."""
    embedding = np.asarray(timestep_embedding(jnp.ones(1, golden.dtype), channels))[0]
    half = channels // 2
    golden.compare("timestep_freqs", np.arctan2(embedding[half : 2 * half], embedding[:half]))
