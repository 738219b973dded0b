"""Metrics of the squares, whose truth is in the picture: the paper's, and realism by itself."""

import math
from collections.abc import Mapping

import numpy as np
from scipy import ndimage

from diffcf_jax.data.squares import (
    BORDER,
    INNER_SIZE,
    SIDE,
    background_color,
    inner_square_color,
)
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

    An image is still a square on noise if its border is grey, its noise as strong and its square in
    its place:

        border_mae = |mean of x' - mean of x| in the border,
        noise_change = mean over channels |std of x' - std of x| outside square and border,
        position_kept = whether the place with the largest mean of green and blue in the border less
            that inside the square is within a pixel of the mask.

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
    border = _widened(mask) & ~mask
    noise = counterfactual[~_widened(mask)].std(0) - image[~_widened(mask)].std(0)
    return {
        "square_mae": math.nan if wanted is None else float(abs(color - wanted)),
        "background_mae": float(abs(background)),
        "background_mae_per_pixel": float(
            np.mean(np.abs(counterfactual.astype(np.float64) - image)[~mask])
        ),
        "border_mae": float(abs(counterfactual[border].mean() - image[border].mean())),
        "noise_change": float(np.abs(noise).mean()),
        "position_kept": float(np.abs(_find_square(counterfactual) - _corner(mask)).max() <= 1),
    }


def _widened(mask: np.ndarray) -> np.ndarray:
    """The square of a mask with its border."""
    return ndimage.binary_dilation(mask, np.ones([3, 3]), iterations=BORDER)


def _corner(mask: np.ndarray) -> np.ndarray:
    return np.argwhere(mask).min(0)


def _find_square(image: np.ndarray) -> np.ndarray:
    """The upper left corner [row, column] of the place that looks most like a square."""
    windows = np.lib.stride_tricks.sliding_window_view
    green_blue = image[..., 1:].mean(-1, dtype=np.float64)
    whole = windows(green_blue, (SIDE, SIDE)).sum((2, 3))
    inside = windows(green_blue, (INNER_SIZE, INNER_SIZE)).sum((2, 3))[
        BORDER:-BORDER, BORDER:-BORDER
    ]
    contrast = (whole - inside) / (SIDE**2 - INNER_SIZE**2) - inside / INNER_SIZE**2
    return np.add(np.unravel_index(np.argmax(contrast), contrast.shape), BORDER)
