"""The benchmark of the report, on a small run."""

import pytest

from diffcf_jax.results.log import image_path, read_results
from eval.speed.page import main, multiply
from tests.browsing import BROWSER
from tests.report.runs import make_run


def test_so_many_cases_of_different_images(tmp_path):
    make_run(tmp_path / "run")
    multiply(tmp_path / "run", tmp_path / "many", 8)
    rows = read_results(tmp_path / "many")
    pictures = {image_path(tmp_path / "many", row, "cf").read_bytes() for row in rows}
    assert len(rows) == len({row["name"] for row in rows}) == len(pictures) == 8


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on PATH and none named by CHROME")
def test_everything_is_measured(tmp_path, monkeypatch, capsys):
    make_run(tmp_path / "run")
    monkeypatch.setenv("CHROME", BROWSER)
    assert main([str(tmp_path / "run"), "--cases=8"]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.startswith("8 cases, ")
    measured = {line[:18].strip(): float(line[18:].removesuffix("ms")) for line in lines}
    names = ["load", "paint", "scroll", "scroll, largest", "search", "sort", "case"]
    assert list(measured) == names and min(measured.values()) > 0


def test_no_results_or_no_browser(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("CHROME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main([str(tmp_path)]) == 2
    monkeypatch.setenv("CHROME", "false")
    assert main([str(tmp_path)]) == 2
    none, missing = capsys.readouterr().err.splitlines()
    assert none.startswith("error: There is no Chromium: ") and "results.jsonl" in missing
