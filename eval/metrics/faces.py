"""Metrics of faces: is it the same person, and which attributes changed with the prediction?"""

from collections.abc import Mapping

import numpy as np

from .batch import Batch, Features, Measure
from .perceptual import cosine_of

_SAME_PERSON = 0.5
_SAME_PERSON_DLIB = 0.6  # the distance below which dlib's authors take two faces for one person's


def identity(features: Features) -> Measure:
    """`fs`, the cosine of the identity features of x and x', and `fva`, whether it is above 0.5."""

    def measure(batch: Batch, _: np.ndarray) -> Mapping[str, np.ndarray]:
        cosine = cosine_of(features, batch)
        return {"fs": cosine, "fva": (cosine > _SAME_PERSON).astype(np.float32)}

    return measure


def identity_dlib(features: Features) -> Measure:
    """`identity_distance_dlib`, |e(x) - e(x')| of dlib's embeddings, and `same_person_dlib`."""

    def measure(batch: Batch, _: np.ndarray) -> Mapping[str, np.ndarray]:
        distance = np.linalg.norm(features(batch.inputs) - features(batch.images), axis=1)
        same = (distance < _SAME_PERSON_DLIB).astype(np.float32)
        return {"identity_distance_dlib": distance, "same_person_dlib": same}

    return measure


def attributes(scores: Features, scores_originals: Features) -> Measure:
    """`mnac`, how many of the attributes flip, and `mnac_originals`, as published."""

    def flips(f: Features, batch: Batch) -> np.ndarray:
        return ((f(batch.inputs) > 0.5) != (f(batch.images) > 0.5)).sum(1).astype(np.float32)

    return lambda batch, _: {
        "mnac": flips(scores, batch),
        "mnac_originals": flips(scores_originals, batch),
    }


def correlation_difference(
    y: np.ndarray, y_final: np.ndarray, a: np.ndarray, a_final: np.ndarray
) -> float:
    """Correlation difference (CD) of a number instead of a class.

        sum over attributes k of |corr(y_final - y, a_final_k - a_k) - corr(y, a_k)|

    It is small where a counterfactual's attributes follow the prediction as they do in the data.
    Attributes that do not vary have no correlation and count as 0.

    Args:
        y: predictions for the originals [n].
        y_final: predictions for the counterfactuals [n].
        a: attribute scores of the originals [n, K].
        a_final: attribute scores of the counterfactuals [n, K].

    Reference: Jeanneret et al., Diffusion models for counterfactual explanations, ACCV 2022.
    """
    return float(np.abs(_correlations(y_final - y, a_final - a) - _correlations(y, a)).sum())


def _correlations(y: np.ndarray, a: np.ndarray) -> np.ndarray:
    """Pearson's correlation of y [n] with each column of a [n, K]; 0 where one does not vary."""
    y, a = y - y.mean(), a - a.mean(0)
    norms = np.sqrt((y**2).sum() * (a**2).sum(0))
    return np.divide(y @ a, norms, out=np.zeros(a.shape[1]), where=norms > 0)
