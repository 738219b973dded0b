"""ONNX's own test cases of single operators, with the extra `test-onnx` (minutes)."""

import re
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffcf_jax.errors import UserError
from diffcf_jax.regressors.onnx.graph import OPERATORS, Program
from diffcf_jax.regressors.onnx.parse import read_model

# What the reader refuses in operators that it knows, and why.
REFUSED = re.compile(
    "|".join(
        [
            "training",  # models are explained after their training
            "with_argmax_2d",  # positions as a second output
            "tf_crop_and_resize",
            "(FLOAT8|FLOAT4|INT4|INT2|BFLOAT16|e8m0)",  # types of 8 bits and less
            "string|STRING|label_encoder",
            "empty_set",  # the largest of no numbers
            "range_.*expanded|range_float",  # ends that are inputs of the test
            "bf16|bfloat16",  # numpy's einsum and rounding
            "_seq|_opt|sequence|optional",  # values that are no tensors
        ]
    )
)


def numbers(value):
    """An input or output as an array; None for what is no tensor of a type that numpy has."""
    try:
        array = np.asarray(value)
    except Exception:
        return None
    return None if array.dtype == object else array


def check(case, path):
    path.write_bytes(case.model.SerializeToString())
    model = read_model(path)
    names = [value.name for value in case.model.graph.input]
    for inputs, outputs in case.data_sets:
        given = {name: numbers(value) for name, value in zip(names, inputs, strict=True)}
        if any(value is None for value in given.values()):
            return False
        first = names[0] if names else ""
        image = given.pop(first, None)
        if image is not None and image.dtype.kind == "f":
            image = jnp.asarray(image)  # computed by JAX, the rest is known while it is traced
        constants = {**model.graph.constants, **given}
        for value, expected in zip(model.graph.outputs, outputs, strict=True):
            expected = numbers(expected)
            if expected is None:
                return False
            program = Program(model.graph.nodes, constants, {}, first, value.name, model.functions)
            found = np.asarray(program({}, image))
            assert found.shape == expected.shape, case.name
            rough = 2e-3 if expected.dtype == np.float16 else 0
            np.testing.assert_allclose(
                found.astype(np.float64), expected.astype(np.float64),
                rtol=max(case.rtol, rough), atol=max(case.atol, 1e-6), err_msg=case.name,
            )  # fmt: skip
    return True


@pytest.fixture
def no_cache():
    """Thousands of small programs are not worth a file each."""
    jax.config.update("jax_enable_compilation_cache", False)
    yield
    jax.config.update("jax_enable_compilation_cache", True)


def test_operators_equal_onnxs_own_cases(tmp_path, no_cache):
    pytest.importorskip("onnx")
    warnings.simplefilter("ignore")
    from onnx.backend.test.case.node import collect_testcases

    passed, failed = 0, []
    for case in collect_testcases(None):
        operators = {node.op_type for node in case.model.graph.node}
        if REFUSED.search(case.name) or operators - OPERATORS.keys() - {"If"}:
            continue
        try:
            passed += check(case, tmp_path / "m.onnx")
        except (UserError, AssertionError) as error:
            failed.append(f"{case.name}: {' '.join(str(error).split())[:200]}")
    assert not failed, "\n".join(failed)
    assert passed >= 1000
