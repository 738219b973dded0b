"""The script of the report and its security policy in headless Chromium, if there is one."""

import json
import re
from pathlib import Path
from urllib.parse import quote, unquote

import pytest

from diffcf_jax.report.html import write_report
from diffcf_jax.results.log import read_results, write_results
from tests.browsing import browse
from tests.report.runs import EVIL, make_run

FIRST, SECOND, THIRD = (EVIL.replace("x ", f"{i} ") for i in range(3))


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What tests/report/browser.js found on a page with three results."""
    folder = tmp_path_factory.mktemp("browser")
    make_run(folder)
    rows = read_results(folder)
    for row, region, target in zip(
        rows, ("north", "south", "north"), (0.5, 0.5, 0.7), strict=False
    ):
        row |= {"region": region, "target": target}
        row["readings"] = {"Oracle": {"before": 0.1, "after": 1 - row["y_final"]}}
    write_results(folder, rows)
    text = write_report(folder).read_text()
    script = (Path(__file__).parent / "browser.js").read_text()
    return browse(text, script, folder, f"#{quote(SECOND)}")


def test_columns_sort_both_ways(found):
    assert found["first"] == [FIRST, SECOND, THIRD]  # the failure before the others
    up, down = [FIRST, SECOND, THIRD], [THIRD, SECOND, FIRST]
    for column, ascending in (("Image", up), ("After", up), ("Oracle", down)):
        assert found["sorted"][column] == [
            ["ascending", ascending],
            ["descending", ascending[::-1]],
        ]
    # No result has a prediction for its reconstruction: the rows keep their order.
    assert [rows for _, rows in found["sorted"]["Reconstruction"]] == [up, up]
    (_, ascending), (_, descending) = found["sorted"]["Success"]
    assert ascending[0] == descending[-1] == FIRST  # the one that did not succeed
    assert found["marked"] == 1 and found["status"] == "Sorted by Oracle, descending."
    assert found["columns"] == 16  # all of them, also those that are hidden at first


def test_the_table_is_searched_and_filtered(found):
    assert found["filtered"] == {
        "HARD": [FIRST], "2 on": [THIRD], "yes": [SECOND, THIRD], "0.7": [THIRD],
        "north": [FIRST, THIRD],
    }  # fmt: skip
    assert found["told"].startswith("2 of 3 results.")


def test_a_link_and_a_point_open_a_case(found):
    assert found["linked"] == SECOND and found["fromPoint"]
    assert unquote(found["hash"]) == f"#{SECOND}"


def test_the_viewer_shows_a_case_and_its_neighbours(found):
    viewer = found["viewer"]
    assert viewer["open"] and viewer["closed"] and viewer["heat"] == 2
    assert "Predicted 0.100 before and 0.400 after, target 0.500, missed. " in viewer["told"]
    assert "of the image changed by 8/255 or more" in viewer["told"]
    assert viewer["told"].endswith("Reason: too <hard>")
    assert viewer["terms"] == [
        "Target", "Before", "Reconstruction", "After", "Distance", "Success", "True value",
        "Oracle reads", "Iterations", "region",
    ]  # fmt: skip
    assert viewer["curves"] == 1 and viewer["strip"] == ["input", "target 0.500"]
    assert viewer["left"] == "reconstruction –"
    # The last case has no next one.
    assert viewer["titles"] == [FIRST, SECOND, THIRD, THIRD, SECOND]


def test_the_slider_uncovers_the_input(found):
    cut = [re.search(r"calc\(100% - ([\d.]+)%\)|(\d+)%", clip) for clip in found["split"]]
    assert cut[1][0] in ("calc(100% - 30%)", "70%") and len(set(found["split"])) == 3


def test_verdicts_are_kept_and_exported(found):
    assert json.loads(found["kept"]) == {FIRST: "spurious"}
    exported = found["exported"]
    assert (exported["judged"], exported["of"]) == (1, 3)
    assert exported["verdicts"] == [
        {"id": FIRST, "name": FIRST, "target": 0.5, "answer": 1, "after": 0.4,
         "verdict": "spurious"},
    ]  # fmt: skip


def test_the_policy_lets_the_page_work_and_nothing_else(found):
    assert found["violations"] == [] and found["failures"] == []
    assert found["complaints"] == [] and found["images"]
    assert sorted(found["refused"]) == ["http://127.0.0.1:9/x.png", "inline", "inline"]
    assert not found["ran"]


def test_the_page_fits_its_window(found):
    width, window = found["width"]
    assert width <= window
