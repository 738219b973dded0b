"""How realistic the counterfactuals are as a set: distances on a network's features."""

from collections.abc import Mapping

import numpy as np

from .distances import (
    cmmd,
    frechet_distance,
    kernel_distance,
    neighbourhoods,
    split_frechet_distance,
)

NEIGHBOUR = 5
INCEPTION, CLIP = "inception", "clip"
_NAMES_ON_INCEPTION = {"fd": "fid", "sfd": "sfid", "kd": "kid"}


def set_metrics(
    network: str, real: np.ndarray, made: np.ndarray, succeeded: np.ndarray, full: bool
) -> Mapping[str, float]:
    """The metrics of two sets under the names that they have on a network's features.

    Args:
        network: "inception" and "clip" have metrics of their own.
        real: features of the originals [n, D].
        made: features of their counterfactuals, in the same order [n, D].
        succeeded: which of these reach the target, bool [n].
        full: whether there is more than Inception's `fid`.
    """
    if not full:
        return {"fid": _frechet(real, made)} if network == INCEPTION else {}
    found = dict(realism(real, made))
    named = {}
    if network == INCEPTION:
        named = {new: found.pop(name) for name, new in _NAMES_ON_INCEPTION.items()}
        named["fid_success"] = _frechet(real, made[succeeded])
    if network == CLIP:
        named["cmmd"] = cmmd(*(x / np.linalg.norm(x, axis=1, keepdims=True) for x in (real, made)))
    return named | {f"{name}_{network}": value for name, value in found.items()}


def region_metric(network: str, real: np.ndarray, made: np.ndarray) -> Mapping[str, float]:
    """The Fréchet distance between the regions that masks left free, see `region.regions`.

    It is called FID on Inception only. The arguments are those of `set_metrics`.
    """
    name = "fid_region" if network == INCEPTION else f"fd_region_{network}"
    return {name: _frechet(real, made)}


def realism(real: np.ndarray, made: np.ndarray) -> Mapping[str, float]:
    """The distances between originals and counterfactuals; NaN where there are too few images.

    Args:
        real: features of the originals [n, D].
        made: features of their counterfactuals, in the same order [n, D].

    Returns:
        `SETS` of the table of metrics.
    """
    count = len(real)
    nan = float("nan")
    found = dict.fromkeys(("precision", "recall", "density", "coverage"), nan)
    if count > NEIGHBOUR:
        found = neighbourhoods(real, made, NEIGHBOUR)
    return {
        "fd": _frechet(real, made),
        "sfd": split_frechet_distance(real, made) if count >= 4 else nan,
        "kd": kernel_distance(real, made) if count >= 2 else nan,
        **found,
    }


def _frechet(real: np.ndarray, made: np.ndarray) -> float:
    return frechet_distance(real, made) if min(len(real), len(made)) >= 2 else float("nan")
