"""Read ONNX files.

The numbers of the fields are those of onnx.proto, https://github.com/onnx/onnx/blob/main/onnx/onnx.proto.
The file is mapped into memory and nothing in it is executed. A file may be hostile: lengths are
checked against what is left of the file before anything is allocated.
"""

import dataclasses
import math
import mmap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from diffcf_jax.errors import UserError
from diffcf_jax.files import check_regular_file, inside, short
from diffcf_jax.regressors.onnx.model import DTYPES, Function, Graph, Model, Node, Reference, Value
from diffcf_jax.regressors.onnx.protobuf import (
    Fields,
    WireError,
    integers,
    numbers,
    read_fields,
    signed,
    text,
)

_DEEPEST = 16  # graphs inside graphs
_LARGEST_RANK = 32  # numpy's own limit is 64


@dataclasses.dataclass(frozen=True)
class _Reader:
    """What the parts of a file need to know of it."""

    path: Path
    opsets: Mapping[str, int]
    beside: dict[Path, memoryview]  # files of weights, each mapped once

    def tensor(self, data: memoryview) -> tuple[str, np.ndarray]:
        fields = read_fields(data)
        name, code = text(fields.get(8, [])), _integer(fields, 2)
        label = short(name) if name else "a constant"
        if code not in DTYPES:
            raise UserError(
                f"{self.path}: {label} has the element type {code}, which is not supported: export "
                "the model in float32."
            )
        shape, dtype = tuple(integers(fields.get(1, []))), DTYPES[code]
        if len(shape) > _LARGEST_RANK or any(size < 0 for size in shape):
            raise WireError(f"{label} has the shape {short(shape)}")
        if _integer(fields, 14) == 1:
            raw = self.external(fields, math.prod(shape) * dtype.itemsize, label)
        elif 9 in fields:
            raw = fields[9][-1]
        else:
            return name, _typed(fields, shape, dtype, label)
        if isinstance(raw, int) or len(raw) != math.prod(shape) * dtype.itemsize:
            raise WireError(f"{label} does not have as much data as its shape {shape} says")
        return name, np.frombuffer(raw, dtype.newbyteorder("<")).astype(dtype, copy=False).reshape(
            shape
        )

    def external(self, fields: Fields, size: int, label: str) -> memoryview:
        entries = dict(_entry(data) for data in fields.get(13, []))
        name = entries.get("location", "")
        try:
            path = inside(self.path.parent, name)
        except UserError:
            path = None
        if path is None or Path(name).is_absolute() or ".." in Path(name).parts:
            raise UserError(
                f"{self.path} keeps {label} in {short(name)}, which is not in the model's folder: "
                "export it with its weights inside (external_data=False)."
            )
        if not path.is_file():
            raise UserError(
                f"{self.path} keeps its weights in {short(name)}, which is missing: put that file "
                "beside it, or export with external_data=False."
            )
        if path not in self.beside:
            self.beside[path] = map_file(path)
        data = self.beside[path]
        try:
            start = int(entries.get("offset", 0))
            length = int(entries.get("length", size))
        except ValueError:
            raise WireError(f"the place of {label} in {short(name)} is no number") from None
        if start < 0 or length != size or start + length > len(data):
            raise WireError(f"{short(name)} does not hold {label}: it is cut short")
        return data[start : start + length]

    def attribute(self, data: memoryview, depth: int) -> tuple[str, Any]:
        fields = read_fields(data)
        name = text(fields.get(1, []))
        if 21 in fields:
            return name, Reference(text(fields[21]))
        readers = {
            2: lambda x: float(numbers([x], "<f4")[0]),
            3: signed,
            4: bytes,
            5: lambda x: self.tensor(x)[1],
            6: lambda x: self.graph(x, depth + 1),
        }
        kind = _integer(fields, 20)
        # AttributeProto.type -> the field that holds the value; old files leave the type out
        single = {1: 2, 2: 3, 3: 4, 4: 5, 5: 6}
        number = single.get(kind) or next((n for n in readers if n in fields), None)
        if kind in single or kind == 0 and number is not None:
            if number not in fields:  # a zero need not be written
                return name, {2: 0.0, 3: 0, 4: b""}.get(number)
            return name, readers[number](fields[number][-1])
        if kind == 6 or kind == 0 and 7 in fields:
            return name, numbers(fields.get(7, []), "<f4").tolist()
        if kind == 7 or kind == 0 and 8 in fields:
            return name, integers(fields.get(8, []))
        if kind == 8 or kind == 0 and 9 in fields:
            return name, [bytes(value) for value in fields.get(9, [])]
        if kind == 0 and not fields.keys() - {1, 13}:
            return name, []
        return name, None  # of a kind that no operator of ours takes

    def node(self, data: memoryview, depth: int) -> Node:
        fields = read_fields(data)
        domain = text(fields.get(7, []))
        domain = "" if domain == "ai.onnx" else domain
        return Node(
            op=text(fields.get(4, [])),
            domain=domain,
            name=text(fields.get(3, [])),
            inputs=tuple(text([value]) for value in fields.get(1, [])),
            outputs=tuple(text([value]) for value in fields.get(2, [])),
            attributes=dict(self.attribute(value, depth) for value in fields.get(5, [])),
            opset=self.opsets.get(domain, 1),
        )

    def graph(self, data: memoryview, depth: int = 0) -> Graph:
        if depth > _DEEPEST:
            raise WireError(f"more than {_DEEPEST} graphs lie inside each other")
        fields = read_fields(data)
        if 15 in fields:
            raise UserError(f"{self.path} has sparse weights: export it with dense ones.")
        constants = dict(self.tensor(value) for value in fields.get(5, []))
        inputs = [_value(value) for value in fields.get(11, [])]
        return Graph(
            nodes=tuple(self.node(value, depth) for value in fields.get(1, [])),
            constants=constants,
            inputs=tuple(value for value in inputs if value.name not in constants),
            outputs=tuple(_value(value) for value in fields.get(12, [])),
        )

    def function(self, data: memoryview) -> tuple[tuple[str, str], Function]:
        fields = read_fields(data)
        opsets = {**self.opsets, **dict(_opset(value) for value in fields.get(9, []))}
        reader = dataclasses.replace(self, opsets=opsets)
        names = {
            number: tuple(Value(text([x]), None, None) for x in fields.get(number, []))
            for number in (4, 5)
        }
        nodes = tuple(reader.node(value, 1) for value in fields.get(7, []))
        graph = Graph(nodes, {}, names[4], names[5])
        defaults = dict(reader.attribute(value, 1) for value in fields.get(11, []))
        return (text(fields.get(10, [])), text(fields.get(1, []))), Function(graph, defaults)


def read_model(path: str | Path) -> Model:
    """Read an ONNX file; weights are views into the files, of which nothing is copied.

    Raises:
        UserError: it is missing, cut short, no ONNX file, or its weights lie outside its folder.
    """
    path = Path(path)
    data = map_file(path)
    try:
        fields = read_fields(data)
        if 7 not in fields or 8 not in fields:
            raise WireError("it holds no graph")
        opsets = dict(_opset(value) for value in fields[8])
        reader = _Reader(path, opsets, {})
        return Model(
            graph=reader.graph(fields[7][-1]),
            functions=dict(reader.function(value) for value in fields.get(25, [])),
            opset=opsets.get("", 1),
            metadata=dict(_entry(value) for value in fields.get(14, [])),
        )
    except UserError:
        raise
    # An int where bytes should be, or the other way round, is a TypeError somewhere.
    except (WireError, TypeError, ValueError, IndexError, MemoryError) as error:
        reason = str(error) if isinstance(error, WireError) else "its fields are mixed up"
        raise UserError(
            f"{path} is not a readable ONNX file ({reason}): export it again."
        ) from None


def map_file(path: Path) -> memoryview:
    """Return the bytes of a file, mapped into memory.

    Raises:
        UserError: it is missing, empty or no regular file.
    """
    check_regular_file(path)
    try:
        with open(path, "rb") as file:
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except (OSError, ValueError) as error:  # an empty file cannot be mapped
        reason = getattr(error, "strerror", None) or "it is empty"
        raise UserError(f"cannot read {path}: {reason}; check the file") from None


def _typed(fields: Fields, shape: tuple[int, ...], dtype: np.dtype, label: str) -> np.ndarray:
    """A tensor whose elements lie in the field of their type."""
    if dtype == np.float32:
        values = numbers(fields.get(4, []), "<f4")
    elif dtype == np.float64:
        values = numbers(fields.get(10, []), "<f8")
    elif dtype.itemsize == 2 and dtype.kind not in "iu":  # float16 and bfloat16, by their bits
        values = np.asarray(integers(fields.get(5, [])), np.int64).astype(np.uint16).view(dtype)
    else:
        number = {"int64": 7, "uint64": 11, "uint32": 11}.get(dtype.name, 5)
        values = np.asarray(integers(fields.get(number, [])), np.int64)
    if len(values) != math.prod(shape):
        raise WireError(f"{label} does not have as many numbers as its shape {shape} says")
    return values.astype(dtype).reshape(shape)


def _integer(fields: Fields, number: int) -> int:
    return integers(fields[number][-1:])[-1] if fields.get(number) else 0


def _entry(data: memoryview) -> tuple[str, str]:
    fields = read_fields(data)
    return text(fields.get(1, [])), text(fields.get(2, []))


def _opset(data: memoryview) -> tuple[str, int]:
    fields = read_fields(data)
    domain = text(fields.get(1, []))
    return "" if domain == "ai.onnx" else domain, _integer(fields, 2)


def _value(data: memoryview) -> Value:
    fields = read_fields(data)
    kind = read_fields(fields[2][-1]) if 2 in fields else {}
    if 1 not in kind:
        return Value(text(fields.get(1, [])), None, None)
    tensor = read_fields(kind[1][-1])
    shape = None
    if 2 in tensor:
        sizes = [read_fields(x) for x in read_fields(tensor[2][-1]).get(1, [])]
        shape = tuple(_integer(size, 1) if 1 in size else None for size in sizes)
        shape = tuple(size if size is not None and size > 0 else None for size in shape)
    return Value(text(fields.get(1, [])), DTYPES.get(_integer(tensor, 1)), shape)
