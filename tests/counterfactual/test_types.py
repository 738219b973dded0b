"""What is saved is what was read."""

import jax
import jax.numpy as jnp
import numpy as np

from diffcf_jax.counterfactual.types import quantize, select


def test_quantize_gives_the_values_of_a_saved_file():
    image = np.linspace(-0.5, 1.5, 20_001, dtype=np.float32)
    saved = np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)
    read = saved.astype(np.float32) / np.float32(255)
    np.testing.assert_array_equal(quantize(jnp.asarray(image)), read)
    np.testing.assert_array_equal(jax.jit(quantize)(image), read)
    np.testing.assert_array_equal(quantize(jnp.asarray(read)), read)


def test_quantize_hides_no_value_that_is_not_finite():
    image = jnp.array([jnp.nan, 0.2, jnp.inf, -jnp.inf])
    assert np.isnan(quantize(image)).tolist() == [True, False, True, True]


def test_select():
    yes, no = {"a": jnp.ones(2), "b": 1}, {"a": jnp.zeros(2), "b": 0}
    for condition, expected in ((True, yes), (False, no)):
        jax.tree.map(np.testing.assert_array_equal, select(condition, yes, no), expected)
