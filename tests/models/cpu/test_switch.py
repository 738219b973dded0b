"""Programs for other platforms contain nothing of what is only for CPUs."""

import jax
import jax.numpy as jnp
import pytest

from diffcf_jax.models import cpu
from diffcf_jax.models.attention import attention
from diffcf_jax.models.cpu.materialize import materialize
from diffcf_jax.models.layers import conv


def gradient_of_attention():
    return jax.make_jaxpr(jax.grad(lambda q: attention(q, q, q).sum()))(jnp.ones((1, 2, 8, 4)))


def gradient_of_a_copy():
    return jax.make_jaxpr(jax.grad(lambda x: materialize(x).sum()))(jnp.ones((2, 8)))


def gradient_of_a_convolution():
    x, layer = jnp.ones((1, 4, 4, 3)), conv(5)
    variables = jax.eval_shape(layer.init, jax.random.key(0), x)
    return jax.make_jaxpr(jax.grad(lambda v: layer.apply(v, x).sum()))(variables)


@pytest.mark.parametrize("gradient, primitive", [
    (gradient_of_attention, "scan"),
    (gradient_of_a_copy, "scan"),
    (gradient_of_a_convolution, "dot_general"),
])  # fmt: skip
def test_only_a_cpu_gets_it(gradient, primitive):
    found = {}
    for platform in ("cpu", "gpu", "tpu"):
        with cpu.tracing_for(platform):
            found[platform] = f" {primitive}[" in str(gradient())
    assert found == {"cpu": True, "gpu": False, "tpu": False}
    assert f" {primitive}[" in str(gradient())  # the tests run on a CPU
