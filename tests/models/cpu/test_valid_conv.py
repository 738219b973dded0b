"""The convolution without padding, in both programs."""

import jax
import numpy as np
import pytest

from diffcf_jax.models import cpu
from diffcf_jax.models.cpu.valid_conv import valid_conv


@pytest.mark.parametrize("stride, height, width", [(1, 7, 8), (2, 7, 8), (2, 9, 11)])
def test_values_are_those_of_the_plain_convolution(stride, height, width):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, height, width, 3)).astype(np.float32)
    kernel = rng.normal(size=(3, 3, 3, 4)).astype(np.float32)
    numbers = ("NHWC", "HWIO", "NHWC")

    def call(padding):
        return valid_conv(x, kernel, (stride, stride), padding, dimension_numbers=numbers)

    with cpu.tracing_for("cpu"):
        found, text = call("VALID"), str(jax.make_jaxpr(lambda: call("VALID"))())
    with cpu.tracing_for("gpu"):
        expected, plain = call("VALID"), str(jax.make_jaxpr(lambda: call("VALID"))())
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert "slice" in text and "slice" not in plain
    margins = ((1, 1), (1, 1))
    assert call(margins).shape == (2, -(-height // stride), -(-width // stride), 4)
