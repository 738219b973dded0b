"""The Python interface: Explainer, Explanation and explain."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffcf_jax
from diffcf_jax import (
    ACRE,
    DiffAERE,
    Explainer,
    Explanation,
    Range,
    Unit,
    UserError,
    load_network,
)
from diffcf_jax.counterfactual.batching import Engine
from diffcf_jax.counterfactual.closure import hoist_constants
from diffcf_jax.counterfactual.events import Job
from diffcf_jax.counterfactual.types import quantize
from diffcf_jax.explanation import stop_reason
from tests import tiny
from tests.counterfactual import methods

OPTIONS = {"iterations": 15, "tau": 2}


def mean_red(images):
    return images[..., 0].mean((1, 2))


@pytest.fixture(scope="module")
def generator(tmp_path_factory):
    return load_network(tiny.save(tmp_path_factory.mktemp("ddpm") / "network", tiny.DDPM))


@pytest.fixture(scope="module")
def diffae(tmp_path_factory):
    return load_network(tiny.save(tmp_path_factory.mktemp("diffae") / "network", tiny.DIFFAE))


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).uniform(0.2, 0.6, (3, 64, 64, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def explainer(generator):
    return Explainer(generator, mean_red, ACRE(threshold=0.02, **OPTIONS), batch_size=2)


@pytest.fixture(scope="module")
def explanation(explainer, images):
    return explainer.explain(images, [0.4, 0.5, 0.3])


def test_any_function_is_a_regressor(explanation, images):
    assert explanation.image.shape == images.shape and explanation.success.all()
    np.testing.assert_allclose(explanation.y_final, [0.4, 0.5, 0.3], atol=0.02)
    np.testing.assert_allclose(explanation.y_initial, mean_red(images), atol=1e-5)
    np.testing.assert_allclose(mean_red(explanation.image), explanation.y_final, atol=1e-5)
    assert explanation.reason == (None, None, None) and explanation.names[0] == "0000"
    assert (explanation.seconds > 0).all() and len(explanation) == 3
    assert repr(explanation) == "Explanation(3 images of 64 pixels, 3 reach their target)"


def test_a_second_call_compiles_nothing(explainer, explanation, images):
    seen = []
    with jax.log_compiles(False):
        before = dict(explainer._engine._compiled)
        again = explainer.explain(images, [0.4, 0.5, 0.3], on_progress=seen.append)
    assert explainer._engine._compiled == before
    assert np.array_equal(again.image, explanation.image)
    assert [p.done for p in seen] == sorted(p.done for p in seen)
    assert (seen[-1].done, seen[-1].total, seen[-1].successes) == (3, 3, 3)
    assert 0 <= seen[-1].distance < 0.3


def test_one_line(generator, explanation, images):
    results = diffcf_jax.explain(
        images, [0.4, 0.5, 0.3], generator=generator, regressor=(lambda v, x: v * mean_red(x), 1.0),
        method="ac-re", threshold=0.02, batch_size=3, **OPTIONS,
    )  # fmt: skip
    np.testing.assert_allclose(results.image, explanation.image, atol=1.01 / 255)


def test_diffae_re_and_auto(diffae, images):
    method = DiffAERE(inversion_steps=5, decode_steps=2, iterations=3, threshold=1.0)
    explainer = Explainer(diffae, mean_red, method, batch_size="auto")
    results = explainer.explain(images[:1], 0.5)
    assert results.success.all() and results.iterations[0] == 1
    np.testing.assert_allclose(
        results.y_reconstruction, mean_red(results.reconstruction), atol=1e-5
    )


def test_several_answers(diffae, images, tmp_path):
    method = DiffAERE(inversion_steps=5, decode_steps=2, iterations=6, threshold=0.01, answers=2)
    explainer = Explainer(diffae, mean_red, method, batch_size=2)
    seen = []
    results = explainer.explain(images[:2], [0.45, 0.5], ["a", "b"], on_progress=seen.append)
    assert results.names == ("a", "a", "b", "b") and results.answer.tolist() == [1, 2, 1, 2]
    np.testing.assert_array_equal(results.input, images[[0, 0, 1, 1]])
    assert results.target.tolist() == pytest.approx([0.45, 0.45, 0.5, 0.5])
    np.testing.assert_array_equal(results.reconstruction[::2], results.reconstruction[1::2])
    assert (seen[-1].done, seen[-1].total) == (4, 4)
    again = diffcf_jax.Explanation.load(results.save(tmp_path))
    assert again.names == results.names and again.answer.tolist() == results.answer.tolist()
    np.testing.assert_array_equal(again.image, results.image)
    assert again.config["method"]["answers"] == 2


def test_values_are_in_the_unit_of_a_trained_regressor(generator, images, tmp_path):
    """The network predicts (y - 40) / 20; targets, thresholds and results are in years."""
    description = {**tiny.REGRESSOR, "unit": "years", "mean": 40.0, "scale": 20.0}
    regressor = load_network(tiny.save(tmp_path / "regressor", description))
    raw = np.asarray(regressor.module.apply(regressor.variables, images[:1]))
    explainer = Explainer(generator, regressor, ACRE(threshold=5.0, **OPTIONS), batch_size=1)
    years = explainer.explain(images[:1], 40 + 20 * raw[0] + 1)
    np.testing.assert_allclose(years.y_initial, 40 + 20 * raw, atol=1e-3)
    assert years.success.all() and abs(years.y_final[0] - years.target[0]) <= 5
    np.testing.assert_allclose(years.curve[0, 0], years.y_initial[0], atol=10)
    regressor = dataclasses.replace(regressor, description=tiny.REGRESSOR)
    explainer = Explainer(generator, regressor, ACRE(threshold=0.25, **OPTIONS), batch_size=1)
    plain = explainer.explain(images[:1], raw[0] + 0.05)
    assert np.array_equal(plain.image, years.image)  # the same search, told in another unit
    one = diffcf_jax.explain(
        images[:1], 1e6, generator=generator, regressor=mean_red, unit=Unit("cm"),
        method=ACRE(tau=1, iterations=1),
    )  # fmt: skip
    assert one.reason[0].startswith(
        "the saved image misses the target by more than 0.05 cm after 1"
    )


def test_saved_and_loaded(explanation, images, tmp_path):
    report = explanation.report(tmp_path / "out")
    assert report.name == "report.html" and "0002" in report.read_text()
    loaded = Explanation.load(tmp_path / "out")
    for field in dataclasses.fields(Explanation):
        before, after = getattr(explanation, field.name), getattr(loaded, field.name)
        if field.name in ("names", "reason"):
            assert before == after
        elif field.name == "curve":
            steps = after.shape[1]
            np.testing.assert_array_equal(before[:, :steps], after)
            assert np.isnan(before[:, steps:]).all()
        elif field.name == "seconds":
            np.testing.assert_allclose(before, after, atol=1e-3)
        elif field.name in ("input", "reconstruction"):  # rounded to 8 bits
            np.testing.assert_allclose(before, after, atol=0.51 / 255)
        elif field.name not in ("mask", "config"):
            np.testing.assert_array_equal(before, after, err_msg=field.name)
    assert loaded.mask is None and loaded.config["method"]["tau"] == 2
    explanation.save(tmp_path / "out")  # replaces its own results
    assert len(Explanation.load(tmp_path / "out")) == 3
    for change, message in (
        ({"seed": 5}, "holds results of another config: seed"),
        ({"networks": {"generator": "another"}}, r"holds results of another config: networks\."),
    ):
        other = dataclasses.replace(explanation, config={**explanation.config, **change})
        with pytest.raises(UserError, match=message):
            other.save(tmp_path / "out")
    years = {**loaded.config, "regressor": {"unit": "years", "mean": 0.0, "scale": 1.0}}
    dataclasses.replace(loaded, config=years).save(tmp_path / "years")
    again = Explanation.load(tmp_path / "years")
    assert again.config["regressor"]["unit"] == "years"
    assert '"unit":"years"' in again.report(tmp_path / "report").read_text()


@pytest.mark.parametrize("make", methods.METHODS.values(), ids=methods.METHODS)
def test_what_is_not_finite_has_a_reason(make):
    def nan_gradient(_, x):
        red = mean_red(x)
        return red + 0.0 * jnp.sqrt(red - red)  # 0 * inf in the backward pass

    image = np.full((methods.SIZE, methods.SIZE, 3), 0.5, np.float32)
    for regressor, reason in (
        (nan_gradient, "the gradient of the regressor is not finite after 1 iterations"),
        (lambda _, x: 3e38 * mean_red(x), "the gradient of the regressor is not finite after 1"),
        (lambda _, x: jnp.log(-mean_red(x)), "the regressor's prediction is not finite after 1"),
    ):
        method = dataclasses.replace(make(), regressor=regressor)
        *_, finished = Engine(method, methods.variables(), 1, seed=0).run([Job(0, image, 0.9)])
        found = finished.counterfactual
        assert stop_reason(found, 0.9, 0.05, Unit()).startswith(reason)
        assert np.isfinite(found.image).all() and not found.success


def test_weights_of_a_closure_are_no_constants():
    weights = jax.random.normal(jax.random.key(0), (64 * 64 * 3,))

    @jax.jit
    def linear(x):
        return x.reshape(len(x), -1) @ weights

    shape = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    apply, constants = hoist_constants(linear, shape)
    x = jax.random.uniform(jax.random.key(1), shape.shape)
    assert np.array_equal(apply(constants, x), linear(x))
    assert [c.shape for c in constants] == [weights.shape]
    text = jax.jit(apply).lower(constants, shape).as_text()
    assert len(text) < 5000 < len(jax.jit(lambda x: linear(x)).lower(shape).as_text())


def test_public_names():
    assert {"Explainer", "Explanation", "ACRE", "DiffAERE", "explain"} <= set(dir(diffcf_jax))
    assert all(getattr(diffcf_jax, name).__doc__ for name in diffcf_jax.__all__)
    assert issubclass(UserError, ValueError)


def test_wrong_images_targets_and_regressors(generator):
    image = np.full((1, 64, 64, 3), 0.5, np.float32)
    for images, target, regressor, message in (
        (image[0], 0.5, mean_red, r"needs \[B, 64, 64, 3\]"),
        (image[:, :32], 0.5, mean_red, r"needs \[B, 64, 64, 3\]"),
        ([image[0], image[0, :32]], 0.5, mean_red, "of different sizes"),
        (["a.png"], 0.5, mean_red, r"needs \[B, 64, 64, 3\]"),
        (image * 255, 0.5, mean_red, "divide uint8 images by 255"),
        ((image * 255).astype(np.uint8), 0.5, mean_red, "divide uint8 images by 255"),
        (image * np.nan, 0.5, mean_red, "floats in"),
        (image, np.nan, mean_red, "targets holds a value that is not finite"),
        (image, 1e39, mean_red, "targets holds a value that is not finite in float32"),
        (image, 1j, mean_red, "targets must be one number, or one for each of 1 images"),
        (image, "old", mean_red, "targets must be one number"),
        (image, [0.2, 0.5], mean_red, "one number, or one for each of 1 images"),
        (image, 0.5, lambda x: x.mean(), "one number for each"),
        (image, 0.5, lambda x: x, "one number for each"),
        (image, 0.5, lambda x: mean_red(x) > 0.5, "numbers of type bool"),
        (image, 0.5, lambda x: mean_red(x) + 1j, "numbers of type complex64"),
        (image, 0.5, "regressor", "regressor is of type str"),
        (image, 0.5, generator, "regressor is a ddpm; it must be a network of kind resnet or"),
    ):
        with pytest.raises(UserError, match=message):
            diffcf_jax.explain(images, target, generator=generator, regressor=regressor)


def test_wrong_arguments(generator, tmp_path):
    small = {**tiny.REGRESSOR, "image_size": 32}
    regressor = load_network(tiny.save(tmp_path / "regressor", small))
    for arguments, message in (
        ({"batch_size": 0}, "batch_size=0 must be a whole number of at least 1, or auto"),
        ({"batch_size": 2.5}, r"batch_size=2\.5 must be a whole number"),
        ({"seed": -1}, "seed=-1 must be a whole number between 0 and"),
        ({"generator": "checkpoints/squares_ddpm"}, "generator is of type str.*load_network"),
        ({"method": "ac"}, "name='ac' is no method"),
        ({"method": ACRE}, "method=<class .* must be ACRE"),
        ({"method": ACRE(), "tau": 3}, "tau is an option of the method"),
        ({"method": DiffAERE()}, "diffae-re needs a generator of kind diffae"),
        ({"taus": 3}, "taus is no option of ac-re: did you mean tau"),
        ({"regressor": regressor}, "of 64 pixels and the regressor of 32"),
    ):
        arguments = {"generator": generator, "regressor": mean_red, **arguments}
        with pytest.raises(UserError, match=message):
            diffcf_jax.explain(np.full((1, 64, 64, 3), 0.5), 0.5, **arguments)
    with pytest.raises(UserError, match="names must hold a different name for each of 2 images"):
        Explainer(generator, mean_red).explain(np.full((2, 64, 64, 3), 0.5), 0.5, names=["a", "a"])


def test_sentences_of_reasons():
    @dataclasses.dataclass
    class Found:
        success: bool
        stop: int
        iterations: int = 7

    assert stop_reason(Found(True, 0), 30, 2, Unit("years")) is None
    assert stop_reason(Found(False, 1), 30, 2, Unit("years")) == (
        "the saved image misses the target by more than 2 years after 7 iterations"
    )
    assert stop_reason(Found(False, 4), 30, 2, Unit("years"), answer=2) == (
        "nothing that earlier answers left unchanged moves the prediction after 7 iterations"
    )


def test_ranges_extremes_and_masks(explainer, images, tmp_path):
    targets = [Range(0.42, 0.48), "max", "0.3..0.5"]  # the last image lies within
    masks = np.zeros(images.shape[:3], bool)
    masks[:, 8:40] = True
    found = explainer.explain(images, targets, masks=masks)
    assert found.success.tolist() == [True, False, True]
    assert 0.42 <= found.y_final[0] <= 0.48
    assert found.y_final[1] > found.y_initial[1] + 0.05
    assert found.reason[1].startswith(("stalled at", "at")) and "iterations" in found.reason[1]
    assert found.iterations[2] == 0
    saved = quantize(jnp.asarray(images))
    np.testing.assert_array_equal(found.image[~masks], np.asarray(saved)[~masks])
    again = Explanation.load(found.save(tmp_path))
    assert again.target.tolist() == [Range(0.42, 0.48), "max", Range(0.3, 0.5)]
    np.testing.assert_array_equal(again.image, found.image)
    np.testing.assert_array_equal(again.y_final, found.y_final)
    assert "0.42..0.48" in found.report(tmp_path).read_text()
    # The control of a mask is the other half of the image.
    control = explainer.explain(images, targets, masks=~masks, mask_control="inverse")
    np.testing.assert_array_equal(control.image, found.image)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"targets": [0.3, "50..40", 0.1]}, r"range 50\.\.40 has no room"),
        ({"targets": [0.3, "most", 0.1]}, "'most' is none of these"),
        ({"targets": ["max", 0.1]}, "one for each of 3 images"),
        ({"masks": np.ones((3, 64, 64))}, "masks is of type float64"),
        ({"masks": np.ones((3, 32, 32), bool)}, r"shape \(3, 32, 32\)"),
        ({"masks": np.zeros((64, 64), bool)}, r"masks\[0\] is empty"),
        ({"mask_control": "inverse"}, "mask_control=inverse needs a mask"),
        ({"masks": np.ones((64, 64), bool), "mask_control": "inverse"}, "white everywhere"),
    ],
)
def test_what_is_wrong_with_targets_and_masks(explainer, images, arguments, message):
    with pytest.raises(UserError, match=message):
        explainer.explain(images, **{"targets": 0.4, **arguments})
