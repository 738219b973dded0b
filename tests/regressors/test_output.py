import numpy as np
import pytest

from diffcf_jax.errors import UserError
from diffcf_jax.regressors.output import parse_output

Z = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)


def softmax(z):
    return np.exp(z) / np.exp(z).sum(-1, keepdims=True)


def test_outputs_equal_their_equations():
    def check(text, expected, z=Z):
        np.testing.assert_allclose(parse_output(text)(z), expected, rtol=2e-6)

    check("", Z[:, 0], Z[:, :1])
    check("column=3", Z[:, 3])
    check("column=-1 mean=40 scale=20", 40 + 20 * Z[:, 4])
    check("column=1 mean=1 scale=0.5 exp=true", np.exp(1 + 0.5 * Z[:, 1]))
    check("expectation=0..4 softmax=true", softmax(Z) @ np.arange(5))
    check("expectation=0.25,1..4 softmax=false", Z @ [0.25, 1, 2, 3, 4])
    check("ordinal=true", (1 / (1 + np.exp(-Z))).sum(-1))
    check("column=0", Z[:, 0], Z[:, :, None, None])  # [B, C, 1, 1]


def test_texts_round_trip():
    for text in (
        "",
        "name=age column=3 mean=40 scale=2.5",
        "expectation=0..80 softmax=true",
        "column=0 hold=2 report=-1,1",
    ):
        assert str(parse_output(text)) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("column=1 ordinal=true", "more than one of column, expectation and ordinal"),
        ("softmax=true", "softmax without expectation"),
        ("hold=1", "hold or report without column: give column=N"),
        ("scale=0 column=1", "has scale=0"),
        ("expectation=80..0", "80..0 must count upwards"),
        ("expectation=0..999999", "must count upwards"),
        ("expectation=a", "it must be a number"),
        ("column=1.5", "it must be a whole number"),
        ("bins=3", "output has 'bins=3': give key=value"),
    ],
)
def test_wrong_texts_are_told(text, expected):
    with pytest.raises(UserError, match=expected):
        parse_output(text)


def test_columns_that_are_held_or_reported():
    output = parse_output("column=0 hold=3 report=-1,1")
    np.testing.assert_array_equal(output.others(Z), Z[:, [3, 4, 1]])
    with pytest.raises(UserError, match="no column 7: give a column from 0 to 4"):
        parse_output("column=0 hold=7").check((2, 5), "m.onnx")
    with pytest.raises(UserError, match="has a column twice in column, hold and report"):
        parse_output("column=4 report=-1").check((2, 5), "m.onnx")
