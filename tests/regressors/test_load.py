"""Regressors that are Python objects or files of other formats than ONNX."""

import flax.linen as nn
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from diffcf_jax import ACRE, Explainer, Unit, load_regressor
from diffcf_jax.checkpoint.store import load_network
from diffcf_jax.errors import UserError
from diffcf_jax.regressors.function import load_object
from diffcf_jax.regressors.load import is_external
from diffcf_jax.regressors.output import Output
from diffcf_jax.regressors.regressor import assemble
from tests import tiny
from tests.regressors import onnx_files as files

IMAGES = np.random.default_rng(0).random((3, 8, 8, 3)).astype(np.float32)
WEIGHTS = np.random.default_rng(1).normal(size=(192,)).astype(np.float32)


def gradients(apply, variables, images):
    """Value and gradient under jit, vmap and remat, as the methods use a regressor."""

    def one(variables, x):
        return apply(variables, x[None])[0]

    each = jax.vmap(jax.value_and_grad(jax.checkpoint(one), 1), (None, 0))
    return jax.jit(each)(variables, images)


def check(value, expected, **options):
    regressor = assemble(load_object(value, "own:model"), None, Output(), Unit())
    values, slopes = gradients(regressor.apply, regressor.variables, IMAGES)
    np.testing.assert_allclose(values, expected(IMAGES), rtol=1e-5)
    slopes_expected = jax.grad(lambda x: expected(x).sum())(IMAGES)
    np.testing.assert_allclose(slopes, slopes_expected, rtol=1e-4, atol=1e-6)
    return regressor


class Linear(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(1)(x.reshape(len(x), -1))


def test_objects_of_jax_are_regressors():
    def weighted(x):
        return x.reshape(len(x), -1) @ WEIGHTS

    check(weighted, weighted)
    check(lambda: weighted, weighted)  # made when it is asked for
    regressor = check((lambda w, x: x.reshape(len(x), -1) @ w, WEIGHTS), weighted)
    assert regressor.variables is WEIGHTS
    module = Linear()
    variables = module.init(jax.random.key(0), IMAGES)
    check((module, variables), lambda x: module.apply(variables, x)[:, 0])
    partial = jax.tree_util.Partial(lambda w, x: x.reshape(len(x), -1) @ w, WEIGHTS)
    regressor = check(partial, weighted)
    assert [leaf.shape for leaf in jax.tree.leaves(regressor.variables)] == [(192,)]


def test_a_regressor_takes_numpy_images_of_double_precision():
    regressor = load_regressor(lambda x: x.mean((1, 2, 3)), "size=4")
    expected = regressor(IMAGES)
    np.testing.assert_allclose(regressor(IMAGES.astype(np.float64)), expected, rtol=1e-6)


def test_nnx_modules_are_regressors():
    class Small(nnx.Module):
        def __init__(self):
            self.dense = nnx.Linear(192, 1, rngs=nnx.Rngs(0))
            self.drop = nnx.Dropout(0.5, rngs=nnx.Rngs(0))

        def __call__(self, x):
            return self.drop(self.dense(x.reshape(len(x), -1)))

    module = Small()
    kernel, bias = module.dense.kernel[...], module.dense.bias[...]
    check(module, lambda x: (x.reshape(len(x), -1) @ kernel + bias)[:, 0])


def test_names_of_objects_are_imported_from_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "own_regressor_module.py").write_text(
        "class Zoo:\n    @staticmethod\n    def red(x):\n        return x[..., 0].mean((1, 2))\n"
    )
    monkeypatch.chdir(tmp_path)
    regressor = load_regressor("own_regressor_module:Zoo.red", unit=Unit("shade", 1, 2))
    np.testing.assert_allclose(regressor(IMAGES), IMAGES[..., 0].mean((1, 2)), rtol=1e-5)
    assert regressor.unit.name == "shade"
    for spec, reason in (
        ("own_regressor_module:blue", "AttributeError"), ("nowhere_at_all:red", "No module named"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=f"{spec} cannot be imported.*{reason}"):
            load_regressor(spec)
    (tmp_path / "broken_module.py").write_text("1 / 0")
    with pytest.raises(UserError, match="ZeroDivisionError: division by zero"):
        load_regressor("broken_module:x")
    with pytest.raises(UserError, match="is of type int; it must be a function of images"):
        load_object(3, "own:x")


def test_networks_of_this_package_have_their_unit(tmp_path):
    directory = tiny.save(
        tmp_path / "net", {**tiny.REGRESSOR, "unit": "years", "mean": 40.0, "scale": 10.0}
    )
    regressor = load_regressor(directory)
    images = np.random.default_rng(0).random((2, 64, 64, 3)).astype(np.float32)
    network = load_network(directory)
    expected = 40 + 10 * network.module.apply(network.variables, images)
    np.testing.assert_allclose(regressor(images), expected, rtol=1e-5)
    with pytest.raises(UserError, match="has its own preprocess and output"):
        load_regressor(directory, "imagenet")
    with pytest.raises(UserError, match="is a ddpm, not a regressor"):
        load_regressor(tiny.save(tmp_path / "ddpm", tiny.DDPM))


def test_exported_functions_are_regressors(tmp_path):
    pytest.importorskip("flatbuffers")  # what jax.export writes with

    def function(x):
        return jnp.tanh(x).reshape(x.shape[0], -1) @ WEIGHTS

    def export(shape="b, 8, 8, 3", order=1, **options):
        sizes = jax.export.symbolic_shape(shape)
        given = jax.ShapeDtypeStruct(sizes, jnp.float32)
        exported = jax.export.export(jax.jit(function), **options)(given)
        (tmp_path / "m.jax").write_bytes(exported.serialize(vjp_order=order))
        return load_regressor(tmp_path / "m.jax")

    regressor = export()
    values, slopes = gradients(regressor.apply, regressor.variables, IMAGES)
    np.testing.assert_allclose(values, function(IMAGES), rtol=1e-5)
    expected = jax.grad(lambda x: function(x).sum())(IMAGES)
    np.testing.assert_allclose(slopes, expected, rtol=1e-5, atol=1e-7)
    with pytest.raises(UserError, match="has no derivative: save it with"):
        export(order=0)
    with pytest.raises(UserError, match="export it for images"):
        export("2, 8, 8, 3")
    with pytest.raises(UserError, match="was exported for tpu, and JAX runs on cpu"):
        export(platforms=["tpu"])
    (tmp_path / "m.jax").write_bytes(b"nothing")
    with pytest.raises(UserError, match="is not what jax.export saves"):
        load_regressor(tmp_path / "m.jax")


def test_pytorch_modules_are_called_back():
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.Dropout(), torch.nn.SiLU(), torch.nn.Flatten(),
        torch.nn.Linear(144, 1),
    )  # fmt: skip
    model = load_object(module, "own:module")
    x = IMAGES.transpose(0, 3, 1, 2)
    given = torch.tensor(x, requires_grad=True)
    result = module(given)
    result.sum().backward()

    def apply(variables, x):
        return model.apply(variables, x)[:, 0]

    values, slopes = gradients(apply, model.variables, x)
    np.testing.assert_allclose(values, result.detach().numpy()[:, 0], rtol=1e-6)
    np.testing.assert_allclose(slopes, given.grad.numpy(), rtol=1e-5, atol=1e-7)
    assert model.digest != load_object(torch.nn.Linear(1, 1), "b").digest
    with pytest.raises(UserError, match="does not say how images are prepared"):
        assemble(model, None, Output(), Unit())


def test_keras_models_are_read_in_safe_mode(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    keras = pytest.importorskip("keras")
    if keras.backend.backend() != "jax":
        pytest.skip("Keras runs on another backend")
    layers = keras.layers
    model = keras.Sequential(
        [keras.Input((8, 8, 3)), layers.Conv2D(4, 3, activation="relu"), layers.Flatten(),
         layers.BatchNormalization(), layers.Dense(1)]
    )  # fmt: skip
    model.save(tmp_path / "m.keras")
    regressor = load_regressor(tmp_path / "m.keras", "range=255")
    expected = np.asarray(model(255 * IMAGES))[:, 0]
    values, slopes = gradients(regressor.apply, regressor.variables, IMAGES)
    np.testing.assert_allclose(values, expected, rtol=1e-5)
    assert np.isfinite(slopes).all() and np.abs(slopes).max() > 0
    unsafe = keras.Sequential([keras.Input((8, 8, 3)), layers.Lambda(lambda x: x[:, 0, 0])])
    unsafe.save(tmp_path / "unsafe.keras")
    with pytest.raises(UserError, match="without Lambda or custom layers"):
        load_regressor(tmp_path / "unsafe.keras", "none")
    (tmp_path / "broken.keras").write_bytes(b"PK")
    with pytest.raises(UserError, match="cannot read .*broken.keras"):
        load_regressor(tmp_path / "broken.keras", "none")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("m.pth", "may execute code when it is read"),
        ("m.pt2", "may execute code when PyTorch reads it: export the model to ONNX"),
        ("m.safetensors", "holds weights without their model"),
        ("m.h5", "is of Keras 2"),
        ("m.txt", "is no regressor: give a network directory"),
        ("m.onnx", "cannot read .*m.onnx: No such file"),
        ("m.jax", "cannot read .*m.jax"),
    ],
)
def test_other_files_are_refused_with_a_way_out(tmp_path, name, expected):
    with pytest.raises(UserError, match=expected):
        load_regressor(tmp_path / name)


def test_what_is_no_network_directory_is_external():
    assert all(map(is_external, ("a/m.onnx", "M.KERAS", "m.jax", "package.module:name")))
    assert not any(map(is_external, ("runs/regressor/best", "a:b/c", "m.txt")))


def test_an_explainer_takes_a_loaded_regressor(tmp_path):
    files.convnet(tmp_path / "m.onnx")
    unit = Unit("years", 1.0, 2.0)
    regressor = load_regressor(tmp_path / "m.onnx", "range=2", "column=1", unit)
    generator = load_network(tiny.save(tmp_path / "ddpm", tiny.DDPM))
    explainer = Explainer(generator, regressor, ACRE(iterations=1, tau=1, threshold=0.01))
    images = np.random.default_rng(0).random((1, 64, 64, 3)).astype(np.float32)
    explanation = explainer.explain(images, targets=2.0)
    np.testing.assert_allclose(explanation.y_initial, regressor(images), rtol=1e-5)
    assert explanation.config["networks"]["regressor"] == regressor.fingerprint()
    assert explanation.config["regressor"]["unit"] == "years"
    with pytest.raises(UserError, match="has a unit of its own"):
        Explainer(generator, regressor, ACRE(), unit=Unit("other"))
