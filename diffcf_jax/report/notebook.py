"""What a notebook shows of an explanation."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffcf_jax.files import encode_png, to_uint8
from diffcf_jax.report.figures import heatmap
from diffcf_jax.report.template import fragment

_SHOWN = 12


def inline(
    rows: Sequence[Mapping[str, Any]], inputs: np.ndarray, images: np.ndarray, title: str
) -> str:
    """Return the first results as a small table with their images.

    Args:
        rows: results with name, target, y_initial, y_final, success and reason.
        inputs: [B, H, W, 3] in [0, 1].
        images: counterfactuals, the same.
        title: a line above.
    """
    shown = []
    for row, x, y in zip(rows[:_SHOWN], inputs, images, strict=False):
        before, after = (to_uint8(image, row["name"]) for image in (x, y))
        pictures = (before, after, heatmap(before, after))
        uris = [base64.b64encode(encode_png(picture)).decode() for picture in pictures]
        shown.append({**row, "pictures": uris})
    return fragment(
        Path(__file__).parent, "notebook", rows=shown, title=title, more=len(rows) - len(shown),
        sharp=inputs.shape[1] <= 96,
    )  # fmt: skip
