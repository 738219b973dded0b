"""Distances between images against values worked out by hand and by torchmetrics."""

import numpy as np
import pytest

from eval.metrics.images import proximity, structural_similarity


def test_distances_with_known_answers():
    x = np.full((2, 16, 16, 3), 0.5, np.float32)
    y = x.copy()
    y[1, 0, 0, 0] += 8 / 255  # changed, to the bit
    y[1, 0, 1, 1] -= 7 / 255  # not yet
    found = {name: np.asarray(value) for name, value in proximity(x, y).items()}
    n = 16 * 16 * 3
    assert found["l1"] == pytest.approx([0, 15 / 255 / n], rel=1e-5)
    assert found["l2"] == pytest.approx([0, np.sqrt((64 + 49) / 255**2 / n)], rel=1e-5)
    assert found["linf"] == pytest.approx([0, 8 / 255], rel=1e-5)
    assert found["changed_area"] == pytest.approx([0, 1 / 256])
    assert found["psnr"][0] == np.inf
    assert found["psnr"][1] == pytest.approx(-10 * np.log10((64 + 49) / 255**2 / n), rel=1e-5)
    assert found["ssim"][0] == pytest.approx(1, abs=1e-6)


def test_structural_similarity_agrees_with_the_reference():
    rng = np.random.default_rng(0)
    x = rng.random((2, 24, 20, 3)).astype(np.float32)
    y = np.clip(x + rng.normal(0, 0.1, x.shape), 0, 1).astype(np.float32)
    y[1] = x[1, ::-1]
    # torchmetrics 1.9, structural_similarity_index_measure(y, x, data_range=1.0), per image
    assert np.asarray(structural_similarity(x, y)) == pytest.approx(
        [0.943313360, 0.055094145], abs=2e-6
    )


def test_small_images_have_no_structural_similarity():
    x = np.zeros((1, 5, 32, 3), np.float32)
    assert np.isnan(proximity(x, x)["ssim"]).all()
