"""The table of attributes, right and wrong."""

import pytest

from diffcf_jax.errors import UserError
from eval.audit.attributes import Attribute, read_attributes

NAMES = ["a.png", "b,c.png", "d.png"]


def read(tmp_path, text):
    path = tmp_path / "attributes.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_attributes(path, NAMES)


def test_rows_are_found_by_name(tmp_path):
    text = '\ufeffname, glasses,light\nd.png,1,0.5\n"b,c.png",0,2\nother,7,7\n\na.png,1,-1\n'
    glasses, light = read(tmp_path, text)
    assert (glasses.name, light.name) == ("glasses", "light")
    assert list(glasses.values) == [1, 0, 1] and glasses.binary
    assert list(light.values) == [-1, 2, 0.5] and not light.binary
    assert list(light.upper) == [False, True, False]


def test_groups_are_never_empty():
    import numpy as np

    assert list(Attribute("x", np.array([5.0, 5, 5, 1])).upper) == [True, True, True, False]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must begin with the line name,attribute"),
        ("id,x\n", "must begin with .* it begins with 'id,x'"),
        ("name\n", "must begin with"),
        ("name,x,x\n", "a different name for each"),
        ("name,x\na.png,1,2\n", "line 2 has 3 cells instead of 2"),
        ("name,x\na.png,1\na.png,0\n", "line 3 has 'a.png' again"),
        ("name,x\na.png,yes\n", "line 2: 'x' is 'yes', which is not a finite number"),
        ("name,x\na.png,nan\n", "line 2: 'x' is 'nan', which is not a finite number"),
        ("name,x\na.png,\n", "'x' is '', which is not a finite number"),
        ("name,x\na.png,1\nz.png,0\n", "no row for 2 of 3 images, such as 'b,c.png'"),
        ('name,x\na.png,1\n"b,c.png",1\nd.png,1\n', "'x' is 1 for all 3 images"),
        (b"\xff\xfe", "line 1: not UTF-8 text"),
    ],
)
def test_errors_name_line_and_column(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        read(tmp_path, text)


def test_a_missing_table(tmp_path):
    with pytest.raises(UserError, match="cannot read .*nowhere.csv"):
        read_attributes(tmp_path / "nowhere.csv", NAMES)
