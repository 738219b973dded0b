"""Digits and their slant."""

import jax
import numpy as np
import pytest

from diffcf_jax.data.digits import read_digits, slant
from diffcf_jax.errors import UserError


def bar(degrees):
    """A stroke of three pixels through the middle, with a soft edge, that leans to the right."""
    y, x = np.mgrid[:28, :28] - 13.5
    across = np.abs(x + y * np.tan(np.radians(degrees)))
    return np.repeat(np.clip(2 - across, 0, 1)[..., None], 3, -1) * (np.abs(y) < 10)[..., None]


def test_the_slant_of_bars():
    degrees = np.array([-30, -5, 0, 10, 25])
    images = np.stack([bar(d) for d in degrees])
    assert np.asarray(slant(images)) == pytest.approx(degrees, abs=0.5)
    assert np.asarray(slant(images[:, :, ::-1])) == pytest.approx(-degrees, abs=0.5)
    moved = np.roll(images, (2, 3), (1, 2))
    assert np.asarray(slant(moved)) == pytest.approx(degrees, abs=0.5)
    noise = np.random.default_rng(0).uniform(0, 0.1, images.shape)  # below what counts
    assert np.asarray(slant(np.maximum(images, noise))) == pytest.approx(degrees, abs=0.5)


def test_nothing_bright_has_no_slant_and_no_gradient_that_is_not_finite():
    value, gradient = jax.value_and_grad(lambda x: slant(x).sum())(np.zeros((1, 28, 28, 3)))
    assert value == 0 and np.isfinite(gradient).all()


def test_digits_of_the_package():
    image = np.linspace(0, 1, 784).tolist()
    digits = read_digits(f'{{"data": {[*image, *image]}}}', "0.json")
    assert digits.shape == (2, 28, 28) and digits[1, -1, -1] == 255
    for wrong in ('{"data": [0, 1]}', "[1]", "no", f'{{"data": {[2.0] * 784}}}', '{"data": []}'):
        with pytest.raises(UserError, match=r"0.json holds .*: fetch it again"):
            read_digits(wrong, "0.json")
