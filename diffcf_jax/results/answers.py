"""Several answers for one image and target: which belong together, and how far apart they are."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np


def together(rows: Iterable[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """Return the rows of each image and target that have several, in the order of the answers."""
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["name"], row["target"]), []).append(row)
    several = [group for group in groups.values() if len(group) > 1]
    return [sorted(group, key=lambda row: row["answer"]) for group in several]


def pairwise_distances(images: Sequence[np.ndarray]) -> dict[tuple[int, int], float]:
    """Return the mean absolute difference of each two images, by their positions.

    Args:
        images: uint8 [H, W, 3], all of one size.

    Returns:
        (i, j) with i < j -> mean over pixels and channels of |x_i - x_j|, full range 1.
    """
    return {
        (i, j): float(np.abs(images[i].astype(np.float64) - images[j]).mean() / 255)
        for i, j in itertools.combinations(range(len(images)), 2)
    }
