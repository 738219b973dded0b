"""How realistic the counterfactuals are as a set: distances on a network's features."""

from collections.abc import Mapping

import numpy as np

from .distances import (
    frechet_distance,
    kernel_distance,
    neighbourhoods,
    split_frechet_distance,
)

NEIGHBOUR = 5


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
        "fd": frechet_distance(real, made) if count >= 2 else nan,
        "sfd": split_frechet_distance(real, made) if count >= 4 else nan,
        "kd": kernel_distance(real, made) if count >= 2 else nan,
        **found,
    }
