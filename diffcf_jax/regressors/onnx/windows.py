"""Windows that slide over an image: where they lie and what is padded."""

import dataclasses
from collections.abc import Sequence

from diffcf_jax.regressors.onnx.model import Node
from diffcf_jax.regressors.onnx.table import unsupported


@dataclasses.dataclass(frozen=True)
class Windows:
    """The windows of a convolution or pooling, one number per image axis.

    Attributes:
        kernel: size of a window.
        strides: from one window to the next.
        dilations: from one tap to the next inside a window.
        pads: (before, after), as the node says.
        extra: what a last window covers beyond that (ceil_mode); negative: not covered.
        counts: number of windows.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]
    extra: tuple[int, ...]
    counts: tuple[int, ...]

    @property
    def padding(self) -> list[tuple[int, int]]:
        """(before, after) such that exactly these windows fit."""
        return [(a, b + c) for (a, b), c in zip(self.pads, self.extra, strict=True)]


def windows(node: Node, sizes: Sequence[int], kernel: Sequence[int]) -> Windows:
    """Return the windows of a node over an image.

    Args:
        node: with `strides`, `dilations`, `pads`, `auto_pad` and `ceil_mode`.
        sizes: of the image.
        kernel: of a window.

    Raises:
        UserError: no window fits into the image.
    """
    rank = len(sizes)
    strides = tuple(node.get("strides", [1] * rank))
    dilations = tuple(node.get("dilations", [1] * rank))
    if len(kernel) != rank or len(strides) != rank or min(strides + dilations, default=1) < 1:
        raise unsupported(node, f"kernel_shape={list(kernel)} and strides={list(strides)}")
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    auto = node.get("auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        pads = []
        for size, span, stride in zip(sizes, spans, strides, strict=True):
            total = max(0, (-(-size // stride) - 1) * stride + span - size)
            less = total // 2
            pads.append((less, total - less) if auto == "SAME_UPPER" else (total - less, less))
    else:
        flat = node.get("pads", [0] * 2 * rank) if auto == "NOTSET" else [0] * 2 * rank
        pads = list(zip(flat[:rank], flat[rank:], strict=True))
    counts, extra = [], []
    for size, span, stride, (before, after) in zip(sizes, spans, strides, pads, strict=True):
        room = size + before + after - span
        count = room // stride + 1
        if node.get("ceil_mode", 0):
            count = -(-room // stride) + 1
            if (count - 1) * stride >= size + before:  # it would begin in the padding
                count -= 1
        if room < 0 or count < 1:
            raise unsupported(node, f"windows of {span} pixels on an image of {size}")
        counts.append(count)
        extra.append((count - 1) * stride - room)
    return Windows(tuple(kernel), strides, dilations, tuple(pads), tuple(extra), tuple(counts))
