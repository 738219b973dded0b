"""Distances between sets against numbers of the public packages."""

import numpy as np
import pytest

from eval.metrics.distances import (
    cmmd,
    frechet_distance,
    kernel_distance,
    neighbourhoods,
    split_frechet_distance,
)
from eval.metrics.realism import realism

A = np.random.default_rng(1).normal(0.0, 1.0, (40, 6))
B = np.random.default_rng(2).normal(0.3, 1.2, (40, 6))


def test_numbers_of_the_public_packages():
    # prdc 0.2, compute_prdc(A, B, 5)
    wanted = {"precision": 0.775, "recall": 0.975, "density": 0.55, "coverage": 0.85}
    assert neighbourhoods(A, B, 5) == pytest.approx(wanted)
    # torchmetrics 1.9, poly_mmd of degree 3
    assert kernel_distance(A, B) == pytest.approx(0.628826765, abs=1e-8)
    # the formula of google-research's CMMD in float64, and that of Heusel et al. by scipy's sqrtm
    assert cmmd(A, B) == pytest.approx(11.393925716329134, rel=1e-9)
    assert frechet_distance(A, B) == pytest.approx(1.9661388618544924, rel=1e-9)


def test_equal_sets():
    assert cmmd(A, A) == pytest.approx(0, abs=1e-9)
    assert neighbourhoods(A, A)["precision"] == neighbourhoods(A, A)["coverage"] == 1
    assert kernel_distance(A, A) < 0  # unbiased: the pairs of an image with itself are left out


def test_halves_share_no_pair():
    # A pair apart from all others: comparing an image with its own original would make it near.
    far = A + 100 * np.arange(40)[:, None]
    assert frechet_distance(far, far) == pytest.approx(0, abs=1e-6)
    assert split_frechet_distance(far, far) > 1000
    assert split_frechet_distance(far, far) == split_frechet_distance(far, far)


def test_too_few_images_give_no_number():
    found = realism(A[:3], B[:3])
    assert np.isfinite(found["fd"]) and np.isnan(found["sfd"]) and np.isnan(found["precision"])
    assert np.isnan(realism(A[:1], B[:1])["fd"])
