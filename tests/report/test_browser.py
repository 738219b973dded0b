"""report.js and the Content Security Policy in headless Chromium, where one is installed."""

import base64
import hashlib
import html
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from diffcf_jax.report.html import write_report
from tests.report.runs import make_run

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
BROWSER = os.environ.get("CHROME") or next(filter(None, map(shutil.which, BROWSERS)), None)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What tests/report/browser.js found on a page with three results."""
    if BROWSER is None:
        pytest.skip("no Chromium on PATH and none named by CHROME")
    folder = tmp_path_factory.mktemp("browser")
    make_run(folder)
    text = write_report(folder).read_text()
    script = (Path(__file__).parent / "browser.js").read_text()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = html.escape(f"script-src 'sha256-{digest}' ", quote=True)
    policy = policy.replace("&#x27;", "&#39;")
    assert text.count("script-src ") == 1
    text = text.replace("script-src ", policy).replace(
        "<title>", f"<script>{script}</script><title>"
    )
    page = folder / "page.html"
    page.write_text(text)
    run = subprocess.run(
        [
            BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
            "--disable-background-networking", f"--user-data-dir={folder / 'profile'}",
            "--window-size=1400,1000", "--virtual-time-budget=3000", "--dump-dom", page.as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    return json.loads(html.unescape(re.search("<title>(.*?)</title>", run.stdout, re.DOTALL)[1]))


def test_columns_sort_both_ways(found):
    first, second, third = (f'<img src={i} onerror="alert(1)">&.png' for i in range(3))
    up, down = [first, second, third], [third, second, first]
    for column in ("name", "after"):
        assert found["sorted"][column] == [["ascending", up], ["descending", down]]
    # No result has a prediction for its reconstruction: the rows stay as they were.
    assert [rows for _, rows in found["sorted"]["unknown"]] == [down, down]
    (_, ascending), (_, descending) = found["sorted"]["success"]
    assert ascending[0] == descending[-1] == first  # the one that did not succeed
    assert found["marked"] == 1 and found["status"] == "Sorted by Success, descending"


def test_the_viewer_shows_a_row_and_its_neighbours(found):
    viewer = found["viewer"]
    assert viewer["open"] and viewer["closed"] and viewer["pictures"] == 4
    assert viewer["captions"][0] == "Input, predicted 0.100"
    assert viewer["terms"] == ["Target", "Before", "After", "Distance", "Success", "Iterations"]
    assert viewer["curves"] == 1
    numbers = [title.split("src=")[1][0] for title in viewer["titles"]]
    assert numbers == ["0", "1", "2", "2", "1"]  # the last row has no next one
    assert found["focus"] == viewer["titles"][-1]  # where the reader was


def test_the_policy_lets_the_page_work_and_nothing_else(found):
    assert found["violations"] == [] and found["failures"] == [] and found["images"]
    assert sorted(found["refused"]) == ["http://127.0.0.1:9/x.png", "inline", "inline"]
    assert not found["ran"]


def test_the_page_fits_its_window(found):
    width, window = found["width"]
    assert width <= window
