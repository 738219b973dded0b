"""Attention against a softmax: values, gradients, dtypes, and blocks of queries."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffcf_jax.models.attention import attention
from diffcf_jax.models.cpu import attention as blocks


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def plain(q, k, v):
    weights = jax.nn.softmax(jnp.einsum("bhqd,bhkd->bhqk", q, k), axis=-1)
    return jnp.einsum("bhqk,bhkd->bhqd", weights, v)


def result_and_gradients(function, *arrays):
    """The result, and the gradients in q, k and v of a function of it."""

    def loss(*arrays):
        out = function(*arrays)
        return jnp.sum(jnp.sin(3 * out)), out

    (_, out), gradients = jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))(*arrays)
    return out, *gradients


# Two blocks of 8 queries; one; and a number that blocks do not divide
@pytest.mark.parametrize("pixels", [16, 8, 11])
def test_it_is_a_softmax_with_its_gradient(pixels, monkeypatch):
    monkeypatch.setattr(blocks, "_BLOCK", 8)
    arrays = [3 * normal(i, 2, 2, pixels, 4) for i in range(3)]
    found, expected = (result_and_gradients(f, *arrays) for f in (attention, plain))
    np.testing.assert_allclose(found[0], expected[0], atol=1e-5)
    for a, b in zip(found[1:], expected[1:], strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5 * jnp.abs(b).max())


def test_under_vmap():
    arrays = [normal(i, 3, 1, 2, 8, 4) for i in range(3)]
    together = jax.vmap(lambda *arrays: result_and_gradients(attention, *arrays))(*arrays)
    for i in range(3):
        alone = result_and_gradients(attention, *(a[i] for a in arrays))
        for a, b in zip(together, alone, strict=True):
            np.testing.assert_allclose(a[i], b, atol=1e-5)


def test_large_logits_do_not_overflow():
    arrays = [100 * normal(i, 1, 1, 8, 4) for i in range(3)]
    out, *gradients = result_and_gradients(attention, *arrays)
    np.testing.assert_allclose(out, plain(*arrays), rtol=1e-5)
    for gradient in gradients:
        assert np.isfinite(gradient).all()


def test_half_precision_sums_in_float32():
    half = [normal(i, 1, 2, 512, 4).astype(jnp.bfloat16) for i in range(3)]
    out, *found = result_and_gradients(attention, *half)
    exact, *expected = result_and_gradients(plain, *(a.astype(jnp.float32) for a in half))
    assert out.dtype == jnp.bfloat16
    np.testing.assert_allclose(out.astype(np.float32), exact, atol=0.02)
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == jnp.bfloat16
        np.testing.assert_allclose(a.astype(np.float32), b, atol=0.03 * jnp.abs(b).max())
