"""Resizes against PyTorch's."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffcf_jax.models.resize import resize_bicubic, resize_bilinear

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.mark.parametrize(
    "resize, folder, name",
    [(resize_bilinear, "fva_a", "resize"), (resize_bicubic, "mnac_a", "bicubic")],
)
def test_equal_the_originals(resize, folder, name):
    io = np.load(GOLDEN / folder / "io.npz")
    x = io[f"{name}_in"].transpose(0, 2, 3, 1)
    for size in (56, 96, 20):
        expected = io[f"{name}_{size}"].transpose(0, 2, 3, 1)
        np.testing.assert_allclose(resize(x, size, size), expected, atol=1e-5)
    with jax.enable_x64(True):
        result = resize(jnp.asarray(x, jnp.float64), 56, 56)
    expected = io[f"{name}_56_f64"].transpose(0, 2, 3, 1)
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("resize", [resize_bilinear, resize_bicubic])
def test_rows_and_columns_are_independent_and_constants_stay(resize):
    x = jnp.arange(2 * 6 * 9 * 3, dtype=jnp.float32).reshape(2, 6, 9, 3)
    assert resize(x, 4, 12).shape == (2, 4, 12, 3)
    np.testing.assert_allclose(resize(x, 6, 9), x, rtol=1e-6)
    np.testing.assert_allclose(resize(jnp.full((1, 5, 7, 3), 0.3), 11, 3), 0.3, rtol=1e-5)
