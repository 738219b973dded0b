"""Writes tiny ONNX files, field by field, so that the tests need no onnx package."""

import struct

import numpy as np

_CODES = {
    "float32": 1, "uint8": 2, "int8": 3, "int32": 6, "int64": 7, "bool": 9, "float16": 10,
    "float64": 11,
}  # fmt: skip


def varint(value):
    value &= 2**64 - 1
    data = bytearray()
    while value > 127:
        data.append(value & 127 | 128)
        value >>= 7
    return bytes([*data, value])


def field(number, value):
    """A field of a message: an int as a varint, a float in 4 bytes, text and bytes by length."""
    if isinstance(value, (int, np.integer)):
        return varint(number << 3) + varint(int(value))
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


def message(*fields):
    return b"".join(field(number, value) for number, value in fields)


def tensor(array, name=""):
    array = np.asarray(array)
    dims = [(1, size) for size in array.shape]
    code = _CODES[array.dtype.name]
    return message(*dims, (2, code), (8, name), (9, array.tobytes()))


def attribute(name, value):
    if isinstance(value, float):
        return message((1, name), (2, value), (20, 1))
    if isinstance(value, int):
        return message((1, name), (3, value), (20, 2))
    if isinstance(value, str):
        return message((1, name), (4, value), (20, 3))
    if isinstance(value, np.ndarray):
        return message((1, name), (5, tensor(value)), (20, 4))
    if isinstance(value, bytes):  # a graph
        return message((1, name), (6, value), (20, 5))
    if value and isinstance(value[0], float):
        return message((1, name), *[(7, number) for number in value], (20, 6))
    return message((1, name), *[(8, number) for number in value], (20, 7))


def node(op, inputs, outputs, name="", domain="", **attributes):
    return message(
        *[(1, text) for text in inputs.split(",") if inputs],
        *[(2, text) for text in outputs.split(",")],
        (3, name),
        (4, op),
        *[(5, attribute(key, value)) for key, value in attributes.items()],
        (7, domain),
    )


def value(name, shape, dtype="float32"):
    """An input or output; a text in the shape is a size that stays open."""
    dims = [message((2, n) if isinstance(n, str) else (1, n)) for n in shape]
    of_tensor = message((1, _CODES[dtype]), (2, message(*[(1, dim) for dim in dims])))
    return message((1, name), (2, message((1, of_tensor))))


def graph(nodes, inputs=(), outputs=(), constants=None, tensors=()):
    return message(
        *[(1, data) for data in nodes],
        (2, "test"),
        *[(5, tensor(array, name)) for name, array in (constants or {}).items()],
        *[(5, data) for data in tensors],
        *[(11, data) for data in inputs],
        *[(12, data) for data in outputs],
    )


def model(graph_data, opset=18, metadata=None, functions=()):
    return message(
        (1, 8),
        (7, graph_data),
        (8, message((1, ""), (2, opset))),
        *[(14, message((1, key), (2, text))) for key, text in (metadata or {}).items()],
        *[(25, data) for data in functions],
    )


def save(path, nodes, constants=None, shape=("b", 3, 8, 8), output=("b", 1), **more):
    """Writes a model of images "x" with the output "y" and returns its path."""
    options = {key: more.pop(key) for key in ("tensors",) if key in more}
    data = graph(nodes, [value("x", shape)], [value("y", output)], constants, **options)
    path.write_bytes(model(data, **more))
    return path


def convnet(path, **more):
    """Writes a small regressor: convolution, ReLU, pooling, dense layer. Returns its weights."""
    rng = np.random.default_rng(0)
    weights = {
        "kernel": rng.normal(0, 0.3, (4, 3, 3, 3)).astype(np.float32),
        "bias": rng.normal(0, 0.3, 4).astype(np.float32),
        "dense": rng.normal(0, 0.5, (4, 3)).astype(np.float32),
        "offset": np.arange(3, dtype=np.float32),
    }
    nodes = [
        node("Conv", "x,kernel,bias", "h", pads=[1, 1, 1, 1], kernel_shape=[3, 3]),
        node("Relu", "h", "r"),
        node("GlobalAveragePool", "r", "p"),
        node("Flatten", "p", "f"),
        node("Gemm", "f,dense,offset", "y"),
    ]
    save(path, nodes, weights, output=("b", 3), **more)
    return weights


def convnet_by_hand(weights, x):
    """What `convnet` computes, in numpy: x [B, 3, H, W] to [B, 3]."""
    padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))
    h = np.einsum("bchwij,ocij->bohw", windows, weights["kernel"].astype(np.float64))
    h = np.maximum(h + weights["bias"][:, None, None], 0)
    return h.mean((2, 3)) @ weights["dense"] + weights["offset"]
