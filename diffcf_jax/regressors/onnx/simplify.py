"""Graphs that compute the same with less."""

import dataclasses
from collections.abc import Iterable

from diffcf_jax.regressors.onnx.model import Node


def share_concatenations(nodes: Iterable[Node]) -> tuple[Node, ...]:
    """Return nodes in which a concatenation goes on from an earlier one that it begins with.

    A dense block concatenates [a, b], [a, b, c], [a, b, c, d] and so on, whose derivative has a
    slice for every letter. [[[a, b], c], d] has two for each concatenation.
    """
    latest: dict[tuple[int | None, str], tuple[tuple[str, ...], str]] = {}
    shared = []
    for node in nodes:
        if node.op == "Concat" and not node.domain and len(node.inputs) > 1:
            inputs, key = node.inputs, (node.get("axis"), node.inputs[0])
            before, output = latest.get(key, ((), ""))
            if 1 < len(before) < len(inputs) and inputs[: len(before)] == before:
                node = dataclasses.replace(node, inputs=(output, *inputs[len(before) :]))
            latest[key] = inputs, node.outputs[0]
        shared.append(node)
    return tuple(shared)
