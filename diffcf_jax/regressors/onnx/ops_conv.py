"""Convolutions and poolings, for images of any number of axes; all return `ChannelsLast`."""

import functools
import itertools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from diffcf_jax.models import cpu
from diffcf_jax.regressors.onnx.channels import ChannelsLast, Value, channels_last
from diffcf_jax.regressors.onnx.model import Node
from diffcf_jax.regressors.onnx.table import Array, operator, unsupported
from diffcf_jax.regressors.onnx.windows import Windows, windows

# Pixels of a window that is computed pixel by pixel: on CPUs that makes the derivative of a MaxPool
# ten times as fast, and a convolution of each channel by itself twenty times. Of larger windows the
# program would take too long to compile.
_FEW = 25


@operator("Conv")
def _conv(node: Node, x: Value, kernel: Array, bias: Array | None = None) -> ChannelsLast:
    kernel = jnp.asarray(kernel)
    w = windows(node, x.shape[2:], kernel.shape[2:])
    y = _convolve(channels_last(x), kernel, w, node.get("group", 1))
    return ChannelsLast(y if bias is None else y + bias)


def _convolve(x: jax.Array, kernel: jax.Array, w: Windows, groups: int) -> jax.Array:
    alone = 1 < groups == x.shape[-1] == kernel.shape[0] and x.dtype == jnp.float32
    if alone and cpu.in_use() and math.prod(w.kernel) <= _FEW:
        weights = kernel.reshape(groups, -1)
        return sum(tap * weights[:, i] for i, tap in enumerate(_taps(_padded(x, w, 0), w)))
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        w.strides,
        w.padding,
        rhs_dilation=w.dilations,
        dimension_numbers=_layout(x.ndim),
        feature_group_count=groups,
    )


@operator("ConvTranspose")
def _conv_transpose(node: Node, x: Value, kernel: Array, bias: Array | None = None) -> ChannelsLast:
    """The transpose of Conv: the image is spread by the stride and convolved with the kernel."""
    kernel = jnp.asarray(kernel)
    rank, groups = x.ndim - 2, node.get("group", 1)
    strides = node.get("strides", [1] * rank)
    dilations = node.get("dilations", [1] * rank)
    more = node.get("output_padding", [0] * rank)
    spans = [(k - 1) * d + 1 for k, d in zip(kernel.shape[2:], dilations, strict=True)]
    pads, wanted = node.get("pads", [0] * 2 * rank), node.get("output_shape")
    auto = node.get("auto_pad", "NOTSET")
    if auto.startswith("SAME") and wanted is None:
        wanted = [size * stride for size, stride in zip(x.shape[2:], strides, strict=True)]
    padding = []
    for i, span in enumerate(spans):
        before, after = pads[i], pads[i + rank]
        if wanted is not None:
            total = strides[i] * (x.shape[i + 2] - 1) + more[i] + span - wanted[-rank:][i]
            less = max(0, total) // 2
            before, after = less, total - less
            if auto != "SAME_UPPER" and total > 0:
                before, after = after, before
        padding.append((span - 1 - before, span - 1 - after + more[i]))
    channels, outputs = kernel.shape[:2]
    kernel = kernel.reshape(groups, channels // groups, outputs, *kernel.shape[2:])
    kernel = kernel.swapaxes(1, 2).reshape(groups * outputs, channels // groups, *kernel.shape[3:])
    y = jax.lax.conv_general_dilated(
        channels_last(x),
        jnp.flip(kernel, range(2, x.ndim)),
        (1,) * rank,
        padding,
        lhs_dilation=strides,
        rhs_dilation=dilations,
        dimension_numbers=_layout(x.ndim),
        feature_group_count=groups,
    )
    return ChannelsLast(y if bias is None else y + bias)


@operator("MaxPool")
def _max_pool(node: Node, x: Value) -> ChannelsLast:
    if len(node.outputs) > 1 and node.outputs[1]:
        raise unsupported(node, "the positions as a second output")
    w, x = windows(node, x.shape[2:], node.get("kernel_shape")), channels_last(x)
    lowest = -np.inf if jnp.issubdtype(x.dtype, jnp.floating) else jnp.iinfo(x.dtype).min
    # JAX has no derivative of dilated windows.
    if max(w.dilations) > 1 or math.prod(w.kernel) <= _FEW:
        return ChannelsLast(functools.reduce(_larger, _taps(_padded(x, w, lowest), w)))
    return ChannelsLast(_reduce(x, w, lowest, jax.lax.max))


@operator("AveragePool")
def _average_pool(node: Node, x: Value) -> ChannelsLast:
    """The mean over the pixels of a window; padding counts only if the node says so."""
    w, x = windows(node, x.shape[2:], node.get("kernel_shape")), channels_last(x)
    counts = np.ones((), x.dtype)
    for axis, size in enumerate(x.shape[1:-1]):
        before, after = w.pads[axis]
        ones = np.ones(size) if not node.get("count_include_pad", 0) else None
        ones = np.ones(size + before + after) if ones is None else np.pad(ones, (before, after))
        ones = np.pad(ones, (0, max(0, w.extra[axis])))
        starts = np.arange(w.counts[axis]) * w.strides[axis]
        taps = np.arange(w.kernel[axis]) * w.dilations[axis]
        count = ones[starts[:, None] + taps].sum(1)
        counts = np.multiply.outer(counts, count)
    counts = counts.astype(x.dtype)[..., None]
    return ChannelsLast(_reduce(x, w, 0.0, jax.lax.add) / counts)


@operator("LpPool")
def _lp_pool(node: Node, x: Value) -> ChannelsLast:
    p = node.get("p", 2)
    w = windows(node, x.shape[2:], node.get("kernel_shape"))
    return ChannelsLast(_reduce(jnp.abs(channels_last(x)) ** p, w, 0.0, jax.lax.add) ** (1 / p))


@operator("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
def _global_pool(node: Node, x: Value) -> ChannelsLast:
    x = channels_last(x)
    axes, p = tuple(range(1, x.ndim - 1)), node.get("p", 2)
    if node.op == "GlobalAveragePool":
        return ChannelsLast(x.mean(axes, keepdims=True))
    if node.op == "GlobalMaxPool":
        return ChannelsLast(x.max(axes, keepdims=True))
    return ChannelsLast((jnp.abs(x) ** p).sum(axes, keepdims=True) ** (1 / p))


def _reduce(x: Array, w: Windows, initial: float, combine: Callable[..., Array]) -> Array:
    """One number per window; negative padding cuts off what no window covers."""
    cut = [min(0, after) for _, after in w.padding]
    for axis, less in enumerate(cut):
        x = jax.lax.slice_in_dim(x, 0, x.shape[axis + 1] + less, axis=axis + 1)
    padding = [(before, max(0, after)) for before, after in w.padding]
    return jax.lax.reduce_window(
        x,
        np.asarray(initial, x.dtype)[()],
        combine,
        (1, *w.kernel, 1),
        (1, *w.strides, 1),
        ((0, 0), *padding, (0, 0)),
        window_dilation=(1, *w.dilations, 1),
    )


def _larger(x: Array, y: Array) -> Array:
    """The larger one, or NaN; of equal ones the first has the whole derivative."""
    return jnp.where((y > x) | jnp.isnan(y), y, x)


def _padded(x: Array, w: Windows, value: float) -> Array:
    padding = [(0, 0), *((before, max(0, after)) for before, after in w.padding), (0, 0)]
    return jnp.pad(x, padding, constant_values=value)


def _taps(x: Array, w: Windows) -> list[Array]:
    """The padded image as each tap of the windows sees it."""
    taps = []
    for tap in itertools.product(*map(range, w.kernel)):
        index = [slice(None)]
        for place, stride, dilation, count in zip(
            tap, w.strides, w.dilations, w.counts, strict=True
        ):
            start = place * dilation
            index.append(slice(start, start + (count - 1) * stride + 1, stride))
        taps.append(x[tuple(index)])
    return taps


def _layout(rank: int) -> tuple[str, str, str]:
    axes = "HWDT"[: rank - 2]
    return f"N{axes}C", f"OI{axes}", f"N{axes}C"
