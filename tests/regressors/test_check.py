import dataclasses

import numpy as np
import pytest
from PIL import Image

from diffcf_jax import load_regressor
from diffcf_jax.main import main
from diffcf_jax.regressors.check import check_regressor, variants
from diffcf_jax.regressors.preprocess import parse_preprocess
from tests.regressors import onnx_files as files

IMAGES = np.random.default_rng(0).random((4, 8, 8, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def convnet(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "m.onnx"
    files.convnet(path)
    return path


def test_a_regressor_that_is_read_right_has_no_problem(convnet):
    regressor = load_regressor(convnet, "range=2", "column=1")
    findings = check_regressor(regressor, IMAGES, np.asarray(regressor(IMAGES)) + 1e-4)
    assert findings.problems == [] and findings.lines[-1] == "No problem was found."
    np.testing.assert_allclose(findings.values, regressor(IMAGES), rtol=1e-6)
    page = "\n".join(findings.lines)
    assert "preprocess   size=8x8 range=2 layout=nchw" in page
    assert "labels       mean |prediction - label| " in page and "(4 labels)" in page


def test_labels_find_a_mistake_in_the_preprocessing(convnet):
    labels = np.array(load_regressor(convnet, "channels=bgr range=4", "column=1")(IMAGES))
    labels[0] = np.nan
    findings = check_regressor(load_regressor(convnet, "range=4", "column=1"), IMAGES, labels)
    (problem,) = findings.problems
    assert "The labels fit better with channels=bgr (" in problem
    assert findings.lines[-1] == f"PROBLEM      {problem}"


def test_predictions_are_compared_with_the_models_own_library(convnet):
    regressor = load_regressor(convnet, "range=2", "column=1")
    right = np.asarray(regressor.model.apply(regressor.variables, regressor.preprocess(IMAGES)))
    for wrong, problems in ((0.0, []), (0.5, ["Predictions are "])):
        native = ("Keras", lambda x, wrong=wrong: right + wrong * np.abs(right).max())
        model = dataclasses.replace(regressor.model, native=native)
        findings = check_regressor(dataclasses.replace(regressor, model=model), IMAGES)
        assert any(line.startswith("Keras        predictions differ") for line in findings.lines)
        assert [problem[:16] for problem in findings.problems] == problems
        assert all(problem.endswith("% from those of Keras.") for problem in findings.problems)


def problem(tmp_path, *nodes, constants=None):
    files.save(tmp_path / "m.onnx", nodes, constants, output=("b",))
    return check_regressor(load_regressor(tmp_path / "m.onnx", "none"), IMAGES).problems


def test_models_without_a_gradient_are_found(tmp_path):
    node, axes = files.node, {"a": np.array([1, 2, 3])}
    mean = node("ReduceMean", "r,a", "y", keepdims=0)
    found = problem(tmp_path, node("Round", "x", "r"), mean, constants=axes)
    assert any("The gradient is 0 everywhere" in line for line in found)
    found = problem(tmp_path, node("Sub", "x,x", "r"), mean, constants=axes)
    assert any("All images get the same prediction" in line for line in found)
    found = problem(
        tmp_path, node("Sub", "x,two", "t"), node("Log", "t", "r"), mean,
        constants={**axes, "two": np.float32(2)},
    )  # fmt: skip
    assert found[0] == "Predictions are not finite."


def test_variants_are_the_usual_mistakes():
    names = [name for name, _ in variants(parse_preprocess("imagenet"))]
    assert names == [
        "channels=bgr", "range=255", "no mean and std", "method=bicubic", "another antialias",
    ]  # fmt: skip
    changed = dict(variants(parse_preprocess("channels=grey range=255")))
    assert list(changed) == ["range=1"] and changed["range=1"].channels == "grey"


def test_the_command_writes_a_page_and_says_by_its_status_whether_all_is_well(
    convnet, tmp_path, capsys
):
    for i, image in enumerate(IMAGES):
        Image.fromarray((255 * image).astype(np.uint8)).save(tmp_path / f"{i}.png")
    (tmp_path / "labels.csv").write_text("name,label\n0.png,1.5\n")
    words = ["check-regressor", str(convnet), f"--images={tmp_path}", "--size=8", "--unit=years"]
    words += [f"--workdir={tmp_path / 'check'}", "--output=column=1"]
    assert main([*words, "--preprocess=range=2"]) == 0
    page = (tmp_path / "check" / "check.txt").read_text()
    assert "predictions  " in page and page in capsys.readouterr().out
    assert Image.open(tmp_path / "check" / "check.png").size == (4 * 128, 2 * 128 + 14)
    # The labels are those of other columns.
    assert main([*words, "--preprocess=range=2", f"--labels={tmp_path / 'labels.csv'}"]) in (0, 1)
    assert "(1 labels)" in capsys.readouterr().out
    assert main(words) == 2
    assert "does not say how images are prepared for it" in capsys.readouterr().err
