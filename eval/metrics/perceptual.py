"""How alike a counterfactual and its original are to networks that have seen many images."""

from collections.abc import Mapping

import numpy as np

from .batch import Batch, Distance, Features, Measure

_SMALLEST = 32  # pixels; smaller images vanish in the classifiers


def lpips(name: str, distance: Distance) -> Measure:
    """LPIPS of x and x' under a name; NaN for images of less than 32 pixels."""

    def measure(batch: Batch, _: np.ndarray) -> Mapping[str, np.ndarray]:
        if min(batch.images.shape[1:3]) < _SMALLEST:
            return {name: np.full(len(batch.images), np.nan)}
        return {name: distance(batch.inputs, batch.images)}

    return measure


def s3(features: Features) -> Measure:
    """`s3`, the cosine of SimSiam's features of x and x'."""
    return lambda batch, _: {"s3": cosine_of(features, batch)}


def cosine_of(features: Features, batch: Batch) -> np.ndarray:
    """The cosine of the features of each original and its counterfactual [B]."""
    a, b = features(batch.inputs), features(batch.images)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return (a * b).sum(1) / np.maximum(norms, 1e-8)
