"""Channels last inside, ONNX's order outside; and what is computed once or without a window."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffcf_jax import load_regressor
from diffcf_jax.models import cpu
from diffcf_jax.regressors.onnx.graph import compile_graph
from diffcf_jax.regressors.onnx.parse import read_model
from tests.regressors import onnx_files as files

RNG = np.random.default_rng(0)
IMAGES = RNG.random((2, 8, 8, 3)).astype(np.float32)
KERNEL = RNG.normal(0, 0.3, (4, 3, 3, 3)).astype(np.float32)


def compute(path, nodes, constants):
    """Yields a convolution "h" [B, 4, 8, 8], and the "r" that nodes make of it."""
    first = files.node("Conv", "x,kernel", "h", pads=[1, 1, 1, 1])
    for name, rest in (("h", []), ("r", nodes)):
        last = files.node("Identity", name, "y")
        files.save(path, [first, *rest, last], {"kernel": KERNEL, **constants})
        program = compile_graph(read_model(path), "y")
        yield np.asarray(program(program.variables, IMAGES.transpose(0, 3, 1, 2)))


CASES = {
    "a number per channel": (
        [files.node("Mul", "h,c", "r")], lambda h, c: h * c, {"c": RNG.random((4, 1, 1))}
    ),
    "a row of pixels": ([files.node("Add", "c,h", "r")], lambda h, c: h + c, {"c": RNG.random(8)}),
    "both orders": (
        [files.node("Transpose", "h", "t", perm=[0, 2, 3, 1]),
         files.node("Transpose", "t", "u", perm=[0, 3, 1, 2]), files.node("Sub", "h,u", "r")],
        lambda h, c: 0 * h, {},
    ),
    "channels side by side": (
        [files.node("Concat", "h,c", "r", axis=1)],
        lambda h, c: np.concatenate([h, c], 1), {"c": RNG.random((2, 1, 8, 8))},
    ),
    "rows one below the other": (
        [files.node("Concat", "h,h", "r", axis=-2)], lambda h, c: np.concatenate([h, h], 2), {}
    ),
    "the mean over pixels": (
        [files.node("ReduceMean", "h,c", "r", keepdims=0)],
        lambda h, c: h.mean((2, 3)), {"c": np.array([-1, 2])},
    ),
    "the mean over channels": (
        [files.node("ReduceMean", "h,c", "r")],
        lambda h, c: h.mean(1, keepdims=True), {"c": np.array([1])},
    ),
    "more axes than the image": (
        [files.node("Add", "h,c", "r")], lambda h, c: h + c, {"c": RNG.random((2, 1, 1, 1, 1))}
    ),
    "the shape": (
        [files.node("Shape", "h", "s"), files.node("Reshape", "h,s", "t"),
         files.node("Cast", "s", "f", to=1), files.node("ReduceProd", "f", "p", keepdims=0),
         files.node("Div", "t,p", "r")], lambda h, c: h / h.size, {},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_operators_after_a_convolution_see_onnxs_order(tmp_path, name):
    nodes, expected, constants = CASES[name]
    constants = {
        key: value.astype(np.float32) if value.dtype == float else value
        for key, value in constants.items()
    }
    h, found = compute(tmp_path / "m.onnx", nodes, constants)
    np.testing.assert_allclose(found, expected(h, constants.get("c")), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
def test_a_convolution_of_each_channel_by_itself(tmp_path, platform):
    """CPUs compute it pixel by pixel; the program for others runs on them as well."""
    kernel = RNG.normal(size=(3, 1, 3, 2)).astype(np.float32)
    node = files.node("Conv", "x,k", "r", group=3, strides=[2, 1], dilations=[1, 2],
                      pads=[1, 0, 1, 3])  # fmt: skip
    files.save(tmp_path / "m.onnx", [node, files.node("ReduceSum", "r,a", "y", keepdims=0)],
               {"k": kernel, "a": np.array([1, 2, 3])}, output=("b",))  # fmt: skip
    with cpu.tracing_for(platform):
        regressor = load_regressor(tmp_path / "m.onnx", "none")
        y, gradient = jax.value_and_grad(lambda x: regressor(x).sum())(jnp.asarray(IMAGES))
    padded = np.pad(IMAGES, ((0, 0), (1, 1), (0, 3), (0, 0)))
    sizes = np.zeros_like(padded)
    for i, j in np.ndindex(3, 2):
        sizes[:, i : i + 7 : 2, 2 * j : 2 * j + 9] += kernel[:, 0, i, j]
    np.testing.assert_allclose(y, (padded * sizes).sum(), rtol=1e-4)
    np.testing.assert_allclose(gradient, sizes[:, 1:-1, :-3], rtol=1e-5, atol=1e-6)


def test_the_first_of_equal_pixels_gets_the_derivative_of_a_pooling(tmp_path):
    nodes = [
        files.node("MaxPool", "x", "p", kernel_shape=[2, 2], strides=[2, 2]),
        files.node("ReduceSum", "p,a", "y", keepdims=0),
    ]
    files.save(tmp_path / "m.onnx", nodes, {"a": np.array([1, 2, 3])}, output=("b",))
    regressor = load_regressor(tmp_path / "m.onnx", "none")
    gradient = jax.grad(lambda x: regressor(x).sum())(jnp.zeros((1, 8, 8, 3)))
    expected = np.zeros((8, 8, 3))
    expected[::2, ::2] = 1
    np.testing.assert_array_equal(gradient[0], expected)
    assert np.isnan(regressor(jnp.asarray(IMAGES).at[0, 3, 3].set(jnp.nan)))[0]


def test_concatenations_of_a_dense_block_go_on_from_each_other(tmp_path):
    nodes = [files.node("Relu", "x", "a")]
    names = ["a"]
    for i in range(4):
        nodes += [files.node("Concat", ",".join(["x", *names]), f"c{i}", axis=1)]
        nodes += [files.node("Conv", f"c{i},k{i}", f"n{i}")]
        names.append(f"n{i}")
    nodes += [files.node("ReduceMean", "n3,axes", "y", keepdims=0)]
    kernels = {f"k{i}": RNG.normal(size=(2, 6 + 2 * i, 1, 1)).astype(np.float32) for i in range(4)}
    path = tmp_path / "m.onnx"
    files.save(path, nodes, {**kernels, "axes": np.array([1, 2, 3])}, output=("b",))
    program = compile_graph(read_model(path), "y")
    assert [len(n.inputs) for n in program.nodes if n.op == "Concat"] == [2, 2, 2, 2]
    parts = [IMAGES, np.maximum(IMAGES, 0)]
    for i in range(4):
        parts.append(np.concatenate(parts, -1) @ kernels[f"k{i}"][..., 0, 0].T)
    np.testing.assert_allclose(
        load_regressor(path, "none")(IMAGES), parts[-1].mean((1, 2, 3)), rtol=1e-4
    )
