"""The networks behind metrics, from the folder that --weights names."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jax

from diffcf_jax.checkpoint.network import Network
from diffcf_jax.checkpoint.store import load_network
from diffcf_jax.errors import UserError
from diffcf_jax.models.caffe_resnet import mnac_input, vggface2_input
from diffcf_jax.models.dlib_resnet import dlib_input
from diffcf_jax.models.inception import inception_input
from diffcf_jax.models.simsiam import simsiam_input

from .batch import EACH, Distance, Features, in_batches
from .onnx import load_onnx_features

Prepare = Callable[[jax.Array], jax.Array]

# Folder -> the --kind that makes it, and how images are prepared for it
_FEATURES: Mapping[str, tuple[str, Prepare]] = {
    "inception": ("inception", inception_input),
    "identity": ("vggface2", vggface2_input),
    "simsiam": ("simsiam", simsiam_input),
    "identity_dlib": ("face-api-identity", dlib_input),
}
_LPIPS = {"lpips": "alex", "lpips_vgg": "vgg", "lpips_squeeze": "squeeze"}


@dataclasses.dataclass(frozen=True)
class Networks:
    """What a folder holds, by the names of its folders.

    Attributes:
        features: networks whose features are compared; "attributes" are scores in [0, 1] on images
            that are normalised once, "attributes_originals" on images that are normalised twice.
        distances: LPIPS on several classifiers.
        own: names of those of the features that are the user's own ONNX files.
    """

    features: Mapping[str, Features] = dataclasses.field(default_factory=dict)
    distances: Mapping[str, Distance] = dataclasses.field(default_factory=dict)
    own: Sequence[str] = ()

    def __contains__(self, name: str) -> bool:
        return name in self.features or name in self.distances


def load_networks(weights: str | Path | None) -> Networks:
    """Loads the networks that the folder holds.

    Raises:
        UserError: there is no such folder; a network in it is broken or of another kind.
    """
    if weights is None:
        return Networks()
    folder = Path(weights)
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}: give --weights the one with the networks")
    there = sorted(path.name for path in folder.iterdir() if path.is_dir())
    features = {
        name: _features(_load(folder / name, kind), prepare)
        for name, (kind, prepare) in _FEATURES.items()
        if name in there
    }
    distances = {
        name: _distance(_load(folder / name, "lpips", backbone))
        for name, backbone in _LPIPS.items()
        if name in there
    }
    if "attributes" in there:
        network = _load(folder / "attributes", "mnac")
        for name, count in (("attributes", 1), ("attributes_originals", 2)):
            prepare = functools.partial(mnac_input, normalisations=count)
            features[name] = _features(network, prepare, jax.nn.sigmoid)
    own = {
        name: found
        for name in there
        if name not in (*_FEATURES, *_LPIPS, "attributes")
        and (found := load_onnx_features(folder / name)) is not None
    }
    if "regressor" in own:
        raise UserError(
            f"{folder / 'regressor'} has the name of the explained regressor: rename the folder"
        )
    for name in own:
        if name.startswith("region_"):
            raise UserError(f"{folder / name} has a name like that of a metric: rename the folder")
    return Networks(features | own, distances, tuple(own))


def _load(directory: Path, kind: str, backbone: str | None = None) -> Network:
    network = load_network(directory)
    model = network.description["model"]
    found = network.kind
    if found == "caffe_resnet":
        found = "vggface2" if model.get("outputs") is None else "mnac"
    if found == "dlib_resnet":
        found = "face-api-identity"
    if found != kind or (backbone and network.module.backbone != backbone):
        of = f" of the classifier {backbone}" if backbone else ""
        raise UserError(f"{directory} holds another network: convert it with --kind {kind}{of}")
    return network


def _features(network: Network, prepare: Prepare, squash: Prepare = lambda x: x) -> Features:
    def apply(variables: dict, x: jax.Array) -> jax.Array:
        with jax.default_matmul_precision("highest"):
            return squash(network.module.apply(variables, prepare(x)))

    return in_batches(apply, network.variables)


def _distance(network: Network) -> Distance:
    def apply(variables: dict, x: jax.Array, y: jax.Array) -> jax.Array:
        with jax.default_matmul_precision("highest"):
            return network.module.apply(variables, x, y)

    return in_batches(apply, network.variables, EACH // 4)  # pairs, with large activations
