import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffcf_jax.models.attention import attention


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def plain(q, k, v):
    weights = jax.nn.softmax(jnp.einsum("bhqd,bhkd->bhqk", q, k), axis=-1)
    return jnp.einsum("bhqk,bhkd->bhqd", weights, v)


def loss(function, q, k, v):
    return jnp.sum(jnp.sin(3 * function(q, k, v)))


# Two blocks of queries; one; and a number that blocks do not divide
@pytest.mark.parametrize("pixels", [1024, 16, 515])
def test_it_is_a_softmax_with_its_gradient(pixels):
    q, k, v = (3 * normal(i, 2, 2, pixels, 4) for i in range(3))
    np.testing.assert_allclose(attention(q, k, v), plain(q, k, v), atol=1e-5)
    found, expected = (jax.grad(loss, (1, 2, 3))(f, q, k, v) for f in (attention, plain))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5 * jnp.abs(b).max())


def test_under_vmap():
    arrays = [normal(i, 3, 1, 2, 8, 4) for i in range(3)]
    together = jax.vmap(jax.grad(loss, (1, 2, 3)), (None, 0, 0, 0))(attention, *arrays)
    for i in range(3):
        alone = jax.grad(loss, (1, 2, 3))(attention, *(a[i] for a in arrays))
        for a, b in zip(together, alone, strict=True):
            np.testing.assert_allclose(a[i], b, atol=1e-5)


def test_large_logits_do_not_overflow():
    q, k, v = (100 * normal(i, 1, 1, 8, 4) for i in range(3))
    np.testing.assert_allclose(attention(q, k, v), plain(q, k, v), rtol=1e-5)
    for gradient in jax.grad(loss, (1, 2, 3))(attention, q, k, v):
        assert np.isfinite(gradient).all()


def test_half_precision_sums_in_float32():
    half = [normal(i, 1, 2, 512, 4).astype(jnp.bfloat16) for i in range(3)]
    arrays = [a.astype(jnp.float32) for a in half]
    out = attention(*half)
    assert out.dtype == jnp.bfloat16
    np.testing.assert_allclose(out.astype(np.float32), plain(*arrays), atol=0.02)
    found = jax.grad(loss, (1, 2, 3))(attention, *half)
    expected = jax.grad(loss, (1, 2, 3))(plain, *arrays)
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == jnp.bfloat16
        np.testing.assert_allclose(a.astype(np.float32), b, atol=0.03 * jnp.abs(b).max())


def test_loops_are_for_cpus_only():
    traced = jax.jit(jax.grad(loss, (1, 2, 3)), static_argnums=0).trace(
        attention, *(jnp.ones((1, 2, 1024, 4)) for _ in range(3))
    )
    programs = {
        platform: traced.lower(lowering_platforms=(platform,)).as_text()
        for platform in ("cpu", "cuda", "tpu")
    }
    assert [name for name, text in programs.items() if "stablehlo.while" in text] == ["cpu"]
