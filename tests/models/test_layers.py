"""The blocks of the networks, each against its definition in numpy."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffcf_jax.models import layers
from diffcf_jax.models.layers import (
    AttentionBlock,
    Downsample,
    GroupNorm,
    Projection,
    ResBlock,
    Upsample,
    timestep_embedding,
)

avg_pool, upsample_nearest = jax.jit(layers.avg_pool), jax.jit(layers.upsample_nearest)
space_to_depth, depth_to_space = (
    jax.jit(function, static_argnums=1)
    for function in (layers.space_to_depth, layers.depth_to_space)
)


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def with_noise(module, *inputs):
    """Variables without the zeros that a fresh block hides its last layer behind."""
    variables = jax.eval_shape(module.init, jax.random.key(0), *inputs)
    leaves, tree = jax.tree.flatten(variables)
    return jax.tree.unflatten(tree, [0.3 * normal(i, *leaf.shape) for i, leaf in enumerate(leaves)])


def apply(module, variables, *inputs):
    return jax.jit(module.apply)(variables, *inputs)


def group_norm(x, scale, bias):
    b, h, w, c = x.shape
    groups = x.reshape(b, h, w, min(32, c), -1)
    mean = groups.mean((1, 2, 4), keepdims=True)
    variance = groups.var((1, 2, 4), keepdims=True)
    return ((groups - mean) / np.sqrt(variance + 1e-5)).reshape(x.shape) * scale + bias


def conv3x3(x, kernel, bias, stride=1):
    x = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    height, width = x.shape[1] - 2, x.shape[2] - 2
    out = sum(
        x[:, i : i + height : stride, j : j + width : stride] @ kernel[i, j]
        for i in range(3)
        for j in range(3)
    )
    return out + bias


def test_timestep_embedding():
    embedding = timestep_embedding(jnp.array([0, 3]), 8)
    freqs = 10_000.0 ** (-np.arange(4) / 4)
    expected = np.concatenate([np.cos(3 * freqs), np.sin(3 * freqs)])
    np.testing.assert_allclose(embedding, [[1] * 4 + [0] * 4, expected], atol=1e-6)
    fraction = timestep_embedding(jnp.array([2.5]), 8)[0]
    np.testing.assert_allclose(fraction[4:], np.sin(2.5 * freqs), atol=1e-6)
    odd = timestep_embedding(jnp.array([3]), 9)
    np.testing.assert_array_equal(odd[:, :8], embedding[1:])
    assert odd.shape == (1, 9) and odd[0, 8] == 0


def test_space_to_depth():
    x = normal(0, 2, 8, 4, 3)
    folded = space_to_depth(x, 2)
    assert folded.shape == (2, 4, 2, 12)
    np.testing.assert_array_equal(folded[1, 3, 1], x[1, 6:8, 2:4].ravel())
    np.testing.assert_array_equal(depth_to_space(folded, 2), x)
    np.testing.assert_array_equal(space_to_depth(x, 1), x)


def test_resampling():
    x = normal(0, 2, 4, 6, 3)
    up = upsample_nearest(x)
    np.testing.assert_array_equal(up, x.repeat(2, axis=1).repeat(2, axis=2))
    np.testing.assert_allclose(avg_pool(up), x, rtol=1e-6)
    np.testing.assert_allclose(avg_pool(x), x.reshape(2, 2, 2, 3, 2, 3).mean((2, 4)), atol=1e-6)


@pytest.mark.parametrize("channels", [64, 32, 12])
def test_group_norm(channels):
    x = 3 + 2 * normal(0, 2, 4, 4, channels)
    variables = with_noise(GroupNorm(), x)
    parameters = variables["params"]
    expected = group_norm(x, np.asarray(parameters["scale"]), np.asarray(parameters["bias"]))
    np.testing.assert_allclose(apply(GroupNorm(), variables, x), expected, atol=2e-5)
    half = apply(GroupNorm(jnp.bfloat16), variables, x.astype(jnp.bfloat16))
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half.astype(np.float32), expected, atol=0.1)


@pytest.mark.parametrize("qkv_before_heads", [False, True])
def test_attention(qkv_before_heads):
    heads, channels = 2, 8
    x = normal(0, 2, 3, 4, channels)
    block = AttentionBlock(heads, qkv_before_heads)
    variables = with_noise(block, x)
    p = jax.tree.map(np.asarray, variables["params"])
    h = group_norm(x, p["norm"]["scale"], p["norm"]["bias"]).reshape(2, 12, channels)
    qkv = h @ p["qkv"]["kernel"] + p["qkv"]["bias"]
    d = channels // heads
    out = np.zeros_like(h)
    for head in range(heads):
        if qkv_before_heads:
            starts = [part * channels + head * d for part in range(3)]
        else:
            starts = [head * 3 * d + part * d for part in range(3)]
        q, k, v = (qkv[..., start : start + d] for start in starts)
        weights = np.exp(q @ k.transpose(0, 2, 1) / np.sqrt(d))
        weights /= weights.sum(-1, keepdims=True)
        out[..., head * d : (head + 1) * d] = weights @ v
    out = out @ p["proj_out"]["kernel"] + p["proj_out"]["bias"]
    expected = x + out.reshape(x.shape)
    np.testing.assert_allclose(apply(block, variables, x), expected, atol=1e-4)


def test_res_block():
    def silu(h):
        return h / (1 + np.exp(-h))

    x, emb, cond = normal(0, 2, 4, 4, 32), normal(1, 2, 5), normal(2, 2, 6)
    block = ResBlock(64)
    variables = with_noise(block, x, emb, cond)
    p = jax.tree.map(np.asarray, variables["params"])

    def dense(h, name):
        return (silu(h) @ p[name]["kernel"] + p[name]["bias"])[:, None, None]

    def conv(h, name):
        return conv3x3(h, p[name]["kernel"], p[name]["bias"])

    h = conv(silu(group_norm(x, p["in_norm"]["scale"], p["in_norm"]["bias"])), "in_conv")
    h = group_norm(h, p["out_norm"]["scale"], p["out_norm"]["bias"])
    emb = dense(emb, "emb_proj")
    h = (h * (1 + emb[..., :64]) + emb[..., 64:]) * (1 + dense(cond, "cond_proj"))
    skip = x @ p["skip_conv"]["kernel"][0, 0] + p["skip_conv"]["bias"]
    np.testing.assert_allclose(
        apply(block, variables, x, normal(1, 2, 5), cond),
        skip + conv(silu(h), "out_conv"),
        rtol=1e-4,
        atol=1e-4,
    )


def test_res_block_of_the_encoder_has_one_convolution():
    x = normal(0, 2, 4, 4, 32)
    block = ResBlock(32, conditioned=False)
    variables = with_noise(block, x)
    assert sorted(variables["params"]) == ["in_conv", "in_norm"]
    down = apply(ResBlock(32, "down", conditioned=False), variables, x)
    p = variables["params"]
    h = nn.silu(apply(GroupNorm(), {"params": p["in_norm"]}, x))
    expected = avg_pool(x) + conv3x3(
        np.asarray(avg_pool(h)),
        np.asarray(p["in_conv"]["kernel"]),
        np.asarray(p["in_conv"]["bias"]),
    )
    np.testing.assert_allclose(down, expected, atol=1e-4)
    assert apply(ResBlock(32, "up", conditioned=False), variables, x).shape == (2, 8, 8, 32)


def test_resampling_outside_of_res_blocks():
    x = normal(0, 1, 6, 4, 3)
    for block, stride, before in ((Downsample(), 2, x), (Upsample(), 1, upsample_nearest(x))):
        variables = with_noise(block, x)
        p = jax.tree.map(np.asarray, variables["params"]["conv"])
        expected = conv3x3(np.asarray(before), p["kernel"], p["bias"], stride)
        np.testing.assert_allclose(apply(block, variables, x), expected, atol=1e-5)
    np.testing.assert_array_equal(apply(Downsample(with_conv=False), {}, x), avg_pool(x))
    np.testing.assert_array_equal(apply(Upsample(with_conv=False), {}, x), upsample_nearest(x))


def test_a_projection_is_one_linear_layer_cut_into_parts():
    params = {"kernel": jnp.arange(8.0).reshape(2, 4), "bias": jnp.array([10.0, 20, 30, 40])}
    x = jnp.array([[1.0, 2], [0, -1]])
    shift, scale = Projection(features=2, parts=2).apply({"params": params}, x)
    np.testing.assert_array_equal(shift, [[18, 31], [6, 15]])  # [0 + 2 * 4 + 10, 1 + 2 * 5 + 20]
    np.testing.assert_array_equal(scale, [[44, 57], [24, 33]])
