"""What a regressor says, with answers worked out by hand."""

import numpy as np
import pytest

from eval.metrics.batch import Batch
from eval.metrics.regressor import reactions


def test_cout_is_the_area_under_the_transition():
    """Of 100 pixels two are carried over at a time; p_t grows until all that changed are there."""
    read = []

    def mean(images):
        read.append(len(images))
        return images.mean((1, 2, 3))

    x = np.full((3, 10, 10, 3), 51, np.float32) / 255
    y = x.copy()
    y[0, 0] = 102 / 255  # 10 pixels, equally: p = 0.2, 0.4 ... 1 after five steps
    y[1] = 102 / 255  # all: a straight line
    batch = Batch([{"target": 0.3}] * 3, x, y, None)
    found = reactions(mean, 0.1)(batch, mean(y))["cout"]
    assert found[:2] == pytest.approx([0.9, 0.0], abs=1e-5) and np.isnan(found[2])
    # y, JPEG, noise, x; then the 4 and 49 mixtures that are neither x nor y
    assert read == [3, 3, 3, 3, 53]
