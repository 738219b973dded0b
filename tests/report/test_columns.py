"""Columns of the user's own in the report."""

import json
import re

import pytest

from diffcf_jax.errors import UserError
from diffcf_jax.report.columns import ATTRIBUTES, add_attributes, keep_attributes
from diffcf_jax.report.html import write_report
from tests.report.runs import EVIL, make_run


def data_of(page):
    return json.loads(re.search(r'<script type="application/json"[^>]*>(.*?)</script>', page)[1])


def test_cells_get_the_type_that_they_look_like(tmp_path):
    (tmp_path / ATTRIBUTES).write_text("name, site,age,light\na.png,Bonn,40,0.5\nc.png,,,1\n")
    faults = []
    rows = [{"name": name, "target": 1} for name in ("a.png", "b.png", "c.png")]
    assert add_attributes(tmp_path, rows, faults) == [
        {"name": "a.png", "target": 1, "site": "Bonn", "age": 40, "light": 0.5},
        {"name": "b.png", "target": 1, "site": None, "age": None, "light": None},
        {"name": "c.png", "target": 1, "site": None, "age": None, "light": 1},
    ]
    assert faults == []


def test_the_page_has_the_columns(tmp_path):
    make_run(tmp_path / "out", n=60)
    lines = [f'"{EVIL.replace("x ", f"{i} ").replace(chr(34), chr(34) * 2)}"' for i in range(60)]
    table = ["name,site,light"] + [f"{line},{i % 2},{i / 7}" for i, line in enumerate(lines)]
    (tmp_path / "my.csv").write_text("\n".join(table))
    before = data_of(write_report(tmp_path / "out").read_text())
    keep_attributes(tmp_path / "out", tmp_path / "my.csv")
    data = data_of(write_report(tmp_path / "out").read_text())
    assert data["groups"] == ["site"] and data["metrics"] == ["light"]  # too many to filter by
    assert {case["groups"]["site"] for case in data["cases"]} == {0, 1}
    assert data["digest"] == before["digest"]  # verdicts stay


def test_a_broken_table_is_a_sentence_on_the_page(tmp_path):
    make_run(tmp_path)
    for text, message in [
        ("name,a\nx.png,1,2\n", "attributes.csv line 2 has 3 cells instead of 2"),
        ("image,a\n", "attributes.csv must begin with the line name,attribute"),
        ("name,target\n", "every result has a target of its own: rename the column"),
    ]:
        (tmp_path / ATTRIBUTES).write_text(text)
        assert message in write_report(tmp_path).read_text()
    with pytest.raises(UserError, match="no.csv"):
        keep_attributes(tmp_path, tmp_path / "no.csv")
