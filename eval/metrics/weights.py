"""The networks behind metrics, from the folder that --weights names."""

from collections.abc import Callable
from pathlib import Path

import jax

from diffcf_jax.checkpoint.network import Network
from diffcf_jax.checkpoint.store import load_network
from diffcf_jax.errors import UserError
from diffcf_jax.models.caffe_resnet import mnac_input, vggface2_input

from .batch import Features, in_batches


def load_features(weights: str | Path | None) -> dict[str, Features]:
    """Loads the networks that the folder holds.

    Returns:
        "identity": VGGFace2's features; "attributes": scores in [0, 1] on images that are
        normalised once, and "attributes_originals" on images that are normalised twice.

    Raises:
        UserError: there is no such folder; a network in it is broken or of another kind.
    """
    if weights is None:
        return {}
    folder = Path(weights)
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}: give --weights the one with the networks")
    found: dict[str, Features] = {}
    if (folder / "identity").is_dir():
        network = _load(folder / "identity", logits=False)
        found["identity"] = _features(network, vggface2_input)
    if (folder / "attributes").is_dir():
        network = _load(folder / "attributes", logits=True)
        for name, count in (("attributes", 1), ("attributes_originals", 2)):
            found[name] = _features(network, lambda x, n=count: mnac_input(x, n), jax.nn.sigmoid)
    return found


def _load(directory: Path, logits: bool) -> Network:
    network = load_network(directory)
    has_logits = network.description["model"].get("outputs") is not None
    if network.kind != "caffe_resnet" or has_logits != logits:
        kind = "mnac" if logits else "vggface2"
        raise UserError(f"{directory} holds another network: convert it with --kind {kind}")
    return network


def _features(
    network: Network,
    prepare: Callable[[jax.Array], jax.Array],
    squash: Callable[[jax.Array], jax.Array] = lambda x: x,
) -> Features:
    apply = jax.jit(lambda variables, x: squash(network.module.apply(variables, prepare(x))))
    return in_batches(lambda x: apply(network.variables, x))
