"""An ONNX model as plain data: its graph, nodes and tensors."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np

from diffcf_jax.files import short

# TensorProto.DataType -> numpy
DTYPES = {
    1: np.dtype("float32"), 2: np.dtype("uint8"), 3: np.dtype("int8"), 4: np.dtype("uint16"),
    5: np.dtype("int16"), 6: np.dtype("int32"), 7: np.dtype("int64"), 9: np.dtype("bool"),
    10: np.dtype("float16"), 11: np.dtype("float64"), 12: np.dtype("uint32"),
    13: np.dtype("uint64"), 16: np.dtype(ml_dtypes.bfloat16),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Value:
    """An input or output of a graph.

    Attributes:
        name: that nodes use.
        dtype: of its elements; None for what is no tensor or of an unknown type.
        shape: sizes, with None for one that the file leaves open; None: the rank is open as well.
    """

    name: str
    dtype: np.dtype | None
    shape: tuple[int | None, ...] | None


@dataclasses.dataclass(frozen=True)
class Node:
    """One operator.

    Attributes:
        op: its type, such as "Conv".
        domain: "" for ONNX's own operators.
        name: for messages; may be "".
        inputs: names of values, "" for one that is left out.
        outputs: the same.
        attributes: name -> int, float, bytes, array, `Graph`, list of these, or `Reference`.
        opset: version of the domain that the file uses.
    """

    op: str
    domain: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    opset: int

    def get(self, name: str, default: Any = None) -> Any:
        """Return an attribute, with strings as text; the default where it is missing."""
        value = self.attributes.get(name)
        if value is None:
            return default
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else value

    def __str__(self) -> str:
        operator = f"{self.domain}.{self.op}" if self.domain else self.op
        label = self.name or (self.outputs[0] if self.outputs else "")
        return f"{operator} (node {short(label)})"


@dataclasses.dataclass(frozen=True)
class Reference:
    """An attribute of a node in a function that takes its value from the function's own."""

    name: str


@dataclasses.dataclass(frozen=True)
class Graph:
    """Nodes in the order in which they are computed.

    Attributes:
        nodes: the operators.
        constants: name -> array, the initialisers.
        inputs: without those that are initialised.
        outputs: what the graph computes.
    """

    nodes: tuple[Node, ...]
    constants: Mapping[str, np.ndarray]
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]


@dataclasses.dataclass(frozen=True)
class Function:
    """An operator that the file defines by a graph of its own.

    Attributes:
        graph: its body; inputs and outputs have names only.
        defaults: attributes that a node may leave out.
    """

    graph: Graph
    defaults: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Model:
    """A file.

    Attributes:
        graph: what it computes.
        functions: (domain, name) -> function.
        opset: version of ONNX's own operators.
        metadata: key -> text.
    """

    graph: Graph
    functions: Mapping[tuple[str, str], Function]
    opset: int
    metadata: Mapping[str, str]
