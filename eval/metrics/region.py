"""The part of an image that a mask left free, for figures of the change alone."""

import numpy as np
from PIL import Image

from .batch import Batch


def regions(batch: Batch, images: np.ndarray) -> np.ndarray:
    """Returns the bounding box of each mask as an image of its own, of the size of the whole.

    The box is cut out and resized with a bicubic filter, which is widened where the box is larger
    than the image of it. What a mask kept outside of the box is thus in no figure, and what it kept
    inside is the same in originals and counterfactuals.

    Args:
        batch: the results, with `allowed`; an empty mask counts as the whole image.
        images: its originals or counterfactuals [B, H, W, 3] in [0, 1].

    Returns:
        [B, H, W, 3] in [0, 1], in whole levels.
    """
    size = images.shape[2], images.shape[1]
    found = [
        Image.fromarray(levels[box(mask)]).resize(size, Image.Resampling.BICUBIC)
        for levels, mask in zip(np.round(images * 255).astype(np.uint8), batch.allowed, strict=True)
    ]
    return np.stack([np.asarray(image) for image in found]) / np.float32(255)


def box(mask: np.ndarray) -> tuple[slice, slice]:
    """The rows and columns of the smallest box around what is True in a mask [H, W]."""
    if not mask.any():
        return slice(None), slice(None)
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
