"""The paper's metrics of the squares, whose truth is in the picture."""

import math
from collections.abc import Mapping

import numpy as np

from diffcf_jax.data.squares import background_color, inner_square_color
from diffcf_jax.target import nearest

from .batch import Batch


def squares(batch: Batch, _: np.ndarray) -> Mapping[str, np.ndarray]:
    """`square_metrics` of each result."""
    found = [
        square_metrics(x, y, mask, target)
        for x, y, mask, target in zip(
            batch.inputs, batch.images, batch.masks, batch.targets, strict=True
        )
    ]
    return {name: np.array([each[name] for each in found]) for name in found[0]}


def square_metrics(
    image: np.ndarray, counterfactual: np.ndarray, mask: np.ndarray, target: float | str
) -> dict[str, float]:
    """Metrics of one square.

    With b(x) the mean of x outside the inner square, the grey border included:

        square_mae = |mean red of x' inside - target|,   background_mae = |b(x') - b(x)|,
        background_mae_per_pixel = mean |x' - x| outside.

    Args:
        image: [H, W, 3] in [0, 1], x.
        counterfactual: [H, W, 3] in [0, 1], x'.
        mask: bool [H, W], True inside the inner square.
        target: value that the square should have, in [0, 1]; or a range, whose nearest value
            counts, "min" or "max", which leave square_mae NaN.
    """
    color = inner_square_color(counterfactual, mask)
    wanted = nearest(color, target)
    background = background_color(counterfactual, mask) - background_color(image, mask)
    return {
        "square_mae": math.nan if wanted is None else float(abs(color - wanted)),
        "background_mae": float(abs(background)),
        "background_mae_per_pixel": float(
            np.mean(np.abs(counterfactual.astype(np.float64) - image)[~mask])
        ),
    }
