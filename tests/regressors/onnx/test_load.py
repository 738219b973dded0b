import mmap

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffcf_jax import load_regressor
from diffcf_jax.errors import UserError
from diffcf_jax.regressors.onnx.parse import read_model
from tests.regressors import onnx_files as files

IMAGES = np.random.default_rng(1).random((2, 8, 8, 3)).astype(np.float32)


def column(path, number=1):
    return load_regressor(path, "none", f"column={number}")


def test_a_convnet_equals_numpy_and_its_gradient_finite_differences(tmp_path):
    weights = files.convnet(tmp_path / "m.onnx")
    regressor = column(tmp_path / "m.onnx")
    expected = files.convnet_by_hand(weights, IMAGES.transpose(0, 3, 1, 2))[:, 1]
    np.testing.assert_allclose(jax.jit(regressor)(IMAGES), expected, rtol=1e-5)
    gradient = np.asarray(jax.grad(lambda x: regressor(x).sum())(IMAGES))
    direction = np.random.default_rng(2).normal(size=IMAGES.shape)
    ends = [
        files.convnet_by_hand(weights, (IMAGES + s * direction).transpose(0, 3, 1, 2))[:, 1].sum()
        for s in (1e-6, -1e-6)
    ]
    assert (gradient * direction).sum() == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-3)


def test_weights_are_arguments_and_every_transformation_works(tmp_path):
    files.convnet(tmp_path / "m.onnx")
    regressor = column(tmp_path / "m.onnx")
    assert {leaf.shape for leaf in jax.tree.leaves(regressor.variables)} == {(4, 3, 3, 3), (4, 3)}
    program = jax.make_jaxpr(regressor.apply)(regressor.variables, IMAGES)
    assert sum(np.size(constant) for constant in program.consts) < 20

    def one(variables, x):
        return regressor.apply(variables, x[None])[0]

    gradients = jax.vmap(jax.value_and_grad(jax.checkpoint(one), 1), (None, 0))

    @jax.jit
    def repeated(variables, x):
        return jax.lax.scan(lambda x, _: (x, gradients(variables, x)), x, None, length=2)[1]

    values, slopes = repeated(regressor.variables, IMAGES)
    np.testing.assert_allclose(values[1], regressor(IMAGES), rtol=1e-5)
    plain = jax.grad(lambda x: regressor(x).sum())(IMAGES)
    np.testing.assert_allclose(slopes[0], plain, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("shape", [(1, 3, 8, 8), ("b", 3, 8, 8)], ids=["fixed", "fixed inside"])
def test_a_model_for_one_image_reads_many_one_by_one(tmp_path, shape):
    nodes = [files.node("Reshape", "x,s", "f"), files.node("ReduceSum", "f,a", "y", keepdims=0)]
    constants = {"s": np.array([1, 192]), "a": np.array([1])}
    files.save(tmp_path / "m.onnx", nodes, constants, shape, ("b",))
    regressor = load_regressor(tmp_path / "m.onnx", "none")
    np.testing.assert_allclose(regressor(IMAGES), IMAGES.sum((1, 2, 3)), rtol=1e-5)


def test_shapes_that_the_graph_computes_are_known_while_it_is_traced(tmp_path):
    nodes = [
        files.node("Shape", "x", "s"),
        files.node("Gather", "s,zero", "b", axis=0),
        files.node("Unsqueeze", "b,axes", "u"),
        files.node("Concat", "u,rest", "n", axis=0),
        files.node("Reshape", "x,n", "f"),
        files.node("ReduceMean", "f,last", "y", keepdims=1),
    ]
    constants = {
        "zero": np.array(0), "axes": np.array([0]), "rest": np.array([-1]), "last": np.array([1]),
    }  # fmt: skip
    files.save(tmp_path / "m.onnx", nodes, constants)
    regressor = load_regressor(tmp_path / "m.onnx", "none")
    np.testing.assert_allclose(jax.jit(regressor)(IMAGES), IMAGES.mean((1, 2, 3)), rtol=1e-5)


def test_functions_and_branches_are_computed(tmp_path):
    double = files.message(
        (1, "Double"), (4, "a"), (5, "c"), (6, "by"),
        (7, files.message(
            (2, "k"), (4, "Constant"), (5, files.message((1, "value_float"), (21, "by"), (20, 1)))
        )),
        (7, files.node("Mul", "a,k", "c")),
        (9, files.message((1, ""), (2, 18))), (10, "own"),
    )  # fmt: skip
    branches = {
        name: files.graph([files.node(op, "d", "t")], outputs=[files.value("t", ("b",))])
        for name, op in (("then_branch", "Neg"), ("else_branch", "Abs"))
    }
    nodes = [
        files.node("ReduceMean", "x,axes", "m", keepdims=0),
        files.node("Double", "m", "d", domain="own", by=3.0),
        files.node("If", "yes", "y", **branches),
    ]
    constants = {"axes": np.array([1, 2, 3]), "yes": np.array(True)}
    path = files.save(tmp_path / "m.onnx", nodes, constants, output=("b",), functions=[double])
    y = load_regressor(path, "none")(IMAGES)
    np.testing.assert_allclose(y, -3 * IMAGES.mean((1, 2, 3)), rtol=1e-5)


def test_functions_that_call_each_other_without_end_are_refused(tmp_path):
    def function(name, *called):
        return files.message(
            (1, name), (4, "a"), (5, "c"), (10, "own"), (9, files.message((1, ""), (2, 18))),
            *[(7, files.node(one, "a", "c", domain="own")) for one in called],
        )  # fmt: skip

    doubling = [function(f"F{i}", f"F{i + 1}", f"F{i + 1}") for i in range(40)]
    for functions in ([function("F0", "F0")], doubling):
        nodes = [files.node("F0", "x", "y", domain="own")]
        path = files.save(tmp_path / "m.onnx", nodes, functions=functions)
        with pytest.raises(UserError, match="more than 1,000,000 operators"):
            load_regressor(path, "none")


def test_metadata_names_preprocess_and_output(tmp_path):
    metadata = {"diffcf.preprocess": "range=255 channels=bgr", "diffcf.output": "column=2 scale=2"}
    weights = files.convnet(tmp_path / "m.onnx", metadata=metadata)
    regressor = load_regressor(tmp_path / "m.onnx")
    x = 255 * IMAGES[..., ::-1].transpose(0, 3, 1, 2)
    np.testing.assert_allclose(
        regressor(IMAGES), 2 * files.convnet_by_hand(weights, x)[:, 2], rtol=1e-5
    )
    assert str(regressor.preprocess).startswith("size=8x8 range=255 channels=bgr")
    # What the caller says comes first.
    assert column(tmp_path / "m.onnx", 0).fingerprint() != regressor.fingerprint()


def test_images_of_another_size_are_resized_to_the_models(tmp_path):
    files.convnet(tmp_path / "m.onnx")
    regressor = column(tmp_path / "m.onnx")
    regressor.check_size(64)
    small, large = (np.full((1, *size, 3), 0.5, np.float32) for size in ((8, 8), (20, 30)))
    np.testing.assert_allclose(regressor(large), regressor(small), rtol=1e-5)
    with pytest.raises(
        UserError, match="takes images of 8x8 pixels, but preprocess makes them 9x9"
    ):
        load_regressor(tmp_path / "m.onnx", "size=9", "column=1")


def external(name, shape, location, offset, length):
    """A tensor whose numbers lie in a file beside the model."""
    entries = {"location": location, "offset": str(offset), "length": str(length)}
    return files.message(
        *[(1, size) for size in shape], (2, 1), (8, name), (14, 1),
        *[(13, files.message((1, key), (2, text))) for key, text in entries.items()],
    )  # fmt: skip


def test_weights_are_views_into_files_that_are_mapped_once(tmp_path):
    (tmp_path / "w.data").write_bytes(np.arange(32, dtype=np.float32).tobytes())
    places = {"a": 0, "b": 64}
    beside = [external(name, (4, 4), "w.data", place, 64) for name, place in places.items()]
    nodes = [files.node("MatMul", "x,w", "y")]
    inside = {"w": np.ones((8, 8), np.float32)}
    path = files.save(tmp_path / "m.onnx", nodes, inside, tensors=beside)
    constants = read_model(path).graph.constants

    def mapped(array):
        while isinstance(array, np.ndarray):
            array = array.base
        return array.obj

    maps = {name: mapped(constants[name]) for name in "wab"}
    assert all(isinstance(found, mmap.mmap) for found in maps.values())
    assert maps["a"] is maps["b"] is not maps["w"]
    np.testing.assert_array_equal(constants["b"].ravel(), np.arange(16, 32))


def test_weights_beside_the_file_are_read_and_others_refused(tmp_path):
    dense = np.arange(3, dtype=np.float32)[:, None] * np.ones(3, np.float32)

    def model(location, length=36):
        nodes = [
            files.node("GlobalAveragePool", "x", "p"), files.node("Flatten", "p", "f"),
            files.node("MatMul", "f,w", "y"),
        ]  # fmt: skip
        tensors = [external("w", (3, 3), location, 4, length)]
        return files.save(tmp_path / "m.onnx", nodes, output=("b", 3), tensors=tensors)

    (tmp_path / "w.data").write_bytes(b"0000" + dense.tobytes())
    y = column(model("w.data"))(IMAGES)
    np.testing.assert_allclose(y, IMAGES.mean((1, 2)) @ [0, 1, 2], rtol=1e-5)
    for location in ("../w.data", str(tmp_path / "w.data"), "a/../w.data", "", "a\0b"):
        with pytest.raises(UserError, match="not in the model's folder.*external_data=False"):
            column(model(location))
    with pytest.raises(UserError, match=r"'x.data', which is missing: put that file beside it"):
        column(model("x.data"))
    for length in (37, 10**18):
        with pytest.raises(UserError, match="is cut short"):
            column(model("w.data", length))
    (tmp_path / "w.data").write_bytes(b"0000")
    with pytest.raises(UserError, match="is cut short"):
        column(model("w.data"))


def test_a_file_that_is_cut_or_changed_anywhere_ends_in_one_sentence(tmp_path):
    path = tmp_path / "m.onnx"
    files.convnet(path)
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    for trial in range(300):
        broken = bytearray(data)
        if trial % 3 == 0:
            broken = broken[: rng.integers(len(broken))]
        else:
            for place in rng.integers(0, len(broken), 1 + trial % 5):
                broken[place] = rng.integers(256)
        path.write_bytes(bytes(broken))
        try:
            column(path).check_size(8)
        except UserError as error:
            assert str(error).count("\n") == 0


def bad_models():
    node, array = files.node, np.array
    mean = node("GlobalAveragePool", "x", "y")
    yield "an unknown operator", [node("Grid", "x", "y", "g1")], {}, r"Grid \(node 'g1'\) is an op"
    yield (
        "an operator of another domain", [node("Relu", "x", "y", domain="com.x")], {},
        r"com.x.Relu \(node 'y'\) is an operator that this package does not read",
    )  # fmt: skip
    yield (
        "a cycle", [node("Add", "x,b", "a"), node("Neg", "a", "b"), node("Neg", "b", "y")], {},
        r"Add \(node 'a'\) reads 'b' before anything has computed it",
    )  # fmt: skip
    yield "a name twice", [mean, mean], {}, "computes 'y' a second time"
    yield (
        "NaN", [node("MatMul", "x,w", "y")], {"w": np.full((8, 8), np.nan, np.float32)},
        "weights 'w' hold NaN",
    )  # fmt: skip
    yield "an integer output", [node("ArgMax", "x", "y")], {}, "of which there is no gradient"
    yield (
        "a huge result", [node("Expand", "x,s", "y")], {"s": array([2**40, 3, 8, 8])},
        r"Expand \(node 'y'\) has a result of shape",
    )  # fmt: skip
    yield (
        "a shape that does not fit", [node("Reshape", "x,s", "y")], {"s": array([7, 7])},
        r"cannot give \(1, 3, 8, 8\) the shape \(7, 7\)",
    )  # fmt: skip
    yield (
        "a shape that depends on the image",
        [node("Cast", "x", "i", to=7), node("Reshape", "x,i", "y")], {},
        "the shape of Reshape .* depends on the image",
    )  # fmt: skip
    yield "training mode", [
        node("BatchNormalization", "x,w,w,w,w", "y", training_mode=1)
    ], {"w": np.ones(3, np.float32)}, "call model.eval"  # fmt: skip
    yield "a missing input", [node("Conv", "x", "y")], {}, r"Conv \(node 'y'\) cannot be computed"
    yield "no node", [], {}, "'y', which nothing computes"


@pytest.mark.parametrize("case", list(bad_models()), ids=lambda case: case[0])
def test_bad_graphs_are_told_in_one_sentence(tmp_path, case):
    _, nodes, constants, expected = case
    path = files.save(tmp_path / "m.onnx", nodes, constants)
    with pytest.raises(UserError, match=expected) as caught:
        load_regressor(path, "none").check_size(8)
    assert str(caught.value).count("\n") == 0


def test_inputs_and_outputs_that_do_not_fit(tmp_path):
    path = tmp_path / "m.onnx"
    node = files.node("GlobalAveragePool", "x", "y")
    x, y = files.value("x", ("b", 3, 8, 8)), files.value("y", ("b", 3, 1, 1))
    cases = {
        "has the inputs x, z": ([x, files.value("z", (1,))], [y]),
        "has the outputs y, x: choose one with name": ([x], [y, x]),
        "takes images of type uint8, through which": (
            [files.value("x", ("b", 3, 8, 8), "uint8")], [y]
        ),
        "takes an input of shape": ([files.value("x", ("b", 12))], [y]),
        "takes images of 4 channels": ([files.value("x", ("b", 4, 8, 8))], [y]),
        "takes 5 images at a time": ([files.value("x", (5, 3, 8, 8))], [y]),
        "channels=grey, rgb or bgr": ([files.value("x", ("b", 1, 8, 8))], [y]),
    }  # fmt: skip
    for expected, (inputs, outputs) in cases.items():
        path.write_bytes(files.model(files.graph([node], inputs, outputs)))
        with pytest.raises(UserError, match=expected):
            load_regressor(path, "none")
    files.convnet(path)
    with pytest.raises(UserError, match=r"has 3 outputs per image: give column=N"):
        load_regressor(path, "none").check_size(8)
    with pytest.raises(UserError, match=r"add softmax=true"):
        load_regressor(path, "none", "expectation=0..2")
    with pytest.raises(UserError, match=r"but expectation has 4 values"):
        load_regressor(path, "none", "expectation=0..3 softmax=true").check_size(8)
    with pytest.raises(UserError, match=r"has no output age: choose one of y"):
        load_regressor(path, "none", "name=age")
    for data in (b"", b"PK\3\4 a zip file", b"\x80\x04 a pickle", b"\n" * 99, bytes(9)):
        path.write_bytes(data)
        with pytest.raises(UserError, match="cannot read|not a readable ONNX file"):
            load_regressor(path, "none")


def test_relu_and_clip_have_the_gradient_0_at_their_kinks(tmp_path):
    nodes = [files.node("Relu", "x", "r"), files.node("Clip", "r,l,h", "c")]
    nodes += [files.node("ReduceSum", "c,a", "y", keepdims=0)]
    constants = {
        "l": np.float32(0), "h": np.float32(6), "a": np.array([1, 2, 3]),
    }  # fmt: skip
    files.save(tmp_path / "m.onnx", nodes, constants, output=("b",))
    regressor = load_regressor(tmp_path / "m.onnx", "none")
    gradient = jax.grad(lambda x: regressor(x).sum())(jnp.zeros((1, 8, 8, 3)))
    assert not np.any(gradient)
