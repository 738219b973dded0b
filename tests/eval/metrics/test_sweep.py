"""Metrics of sweeps, with known answers."""

import numpy as np
import pytest

from eval.metrics.sweep import sweep_metrics, sweeps


def row(name, target, answer=1):
    return {"name": name, "target": target, "answer": answer}


def test_images_with_three_numbers_have_a_sweep():
    rows = [row("a", 0.3), row("b", 0.1), row("a", 0.1), row("b", "max"), row("b", 0.2)]
    rows += [row("a", 0.2), row("a", 0.1, answer=2)]
    assert sweeps(rows) == [[2, 5, 0]]


def test_known_sweeps():
    start, there = np.zeros((2, 2, 3)), np.zeros((2, 2, 3))
    there[0, 0] = 0.2  # a quarter of all values: |d| = 0.1
    aside = np.zeros((2, 2, 3))
    aside[1, 1] = 0.2
    readings = {"": np.float32([1, 2, 3]), "oracle": np.float32([5, 4, 3])}
    line = sweep_metrics(np.stack([start, there, 2 * there]), [1, 2, 3], readings)
    expected = {"kendall_tau": 1, "oracle_kendall_tau": -1, "path_length": 0.1, "path_curvature": 0}
    assert line == pytest.approx(expected, abs=1e-6)
    corner = sweep_metrics(np.stack([start, there, there + aside]), [1, 2, 3], readings)
    assert corner["path_curvature"] == pytest.approx(np.pi / 2)


def test_what_does_not_move_has_no_number():
    still = sweep_metrics(np.zeros((3, 2, 2, 3)), [1, 2, 3], {"": np.ones(3, np.float32)})
    assert np.isnan(list(still.values())).all()
