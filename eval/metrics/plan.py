"""What is measured, which depends on the suite and on the networks at hand."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from diffcf_jax.target import Range

from .batch import Features, Measure, remembering
from .faces import attributes, identity, identity_dlib
from .images import distances
from .metric import METRICS, OF_FACES
from .nearest import nearest_in_pixels, nearest_to_dlib
from .perceptual import lpips, s3
from .realism import INCEPTION
from .regressor import Judge, oracle, reactions, searched, validity
from .squares import squares
from .weights import load_networks


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        measures: groups of metrics of single results.
        features: networks on whose features sets of images are compared, by name.
        attributes: the attribute network, for `cd`; None leaves that out.
        full: whether there are all metrics of sets: more than Inception's `fid`, and the line of
            the predictions over the targets.
        missing: metric -> what it needs.
    """

    measures: Sequence[Measure]
    features: Mapping[str, Features] = dataclasses.field(default_factory=dict)
    attributes: Features | None = None
    full: bool = False
    missing: Mapping[str, str] = dataclasses.field(default_factory=dict)


def make_plan(
    predict: Judge,
    oracles: Mapping[str, Judge],
    threshold: float,
    masks: bool,
    restricted: bool = False,
    weights: str | Path | None = None,
    full: bool = False,
    training: np.ndarray | None = None,
    labels: Range | None = None,
) -> Plan:
    """Decides what can be measured with the networks and the training images at hand.

    Args:
        predict: the explained regressor.
        oracles: by name.
        threshold: in the label's unit.
        masks: whether the images are squares.
        restricted: whether all images have a mask outside of which nothing could change.
        weights: the folder of further networks.
        full: whether everything is measured.
        training: the generator's training images, uint8 [N, H, W, 3].
        labels: the range of the regressor's training labels.

    Raises:
        UserError: a network in `weights` is broken or of another kind.
    """
    networks = load_networks(weights)
    measures: list[Measure] = [squares] if masks else []
    measures += [validity(threshold), searched(labels)]
    measures += [oracle(name, judge, threshold) for name, judge in oracles.items()]
    measures.append(distances())
    measures += [
        lpips(name, distance)
        for name, distance in networks.distances.items()
        if full or not METRICS[name].full
    ]
    features = {name: remembering(look) for name, look in networks.features.items()}
    if "identity" in features:
        measures.append(identity(features["identity"]))
    if "identity_dlib" in features:
        measures.append(identity_dlib(features["identity_dlib"]))
    if "attributes" in features:
        measures.append(attributes(features["attributes"], features["attributes_originals"]))
    if training is not None:
        measures.append(nearest_in_pixels(training))
        if "identity_dlib" in features:
            measures.append(nearest_to_dlib(training, features["identity_dlib"]))
    missing = {
        name: metric.needs
        for name, metric in METRICS.items()
        if metric.needs
        and metric.network not in networks
        and (full or not metric.full)
        and not (masks and metric.network in OF_FACES)
        and (restricted or name != "fid_region")
    }
    if not full:
        sets = {name: features[name] for name in (INCEPTION,) if name in features}
        return Plan(measures, sets, missing=missing)
    measures.append(reactions(predict, threshold))
    if "simsiam" in features:
        measures.append(s3(features["simsiam"]))
    compared = (INCEPTION, "identity", "identity_dlib", *networks.own)
    sets = {name: features[name] for name in compared if name in features}
    if predict.features is not None:
        sets["regressor"] = predict.features
    return Plan(measures, sets, features.get("attributes"), True, missing)
