"""The report: complete, self-contained, safe."""

import base64
import hashlib
import html
import html.parser
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from diffcf_jax.errors import UserError
from diffcf_jax.report.html import write_report
from diffcf_jax.report.numbers import digits_of
from diffcf_jax.report.reproduction import again, config_file
from diffcf_jax.results.log import read_results, write_results
from tests.report.runs import make_run


class Page(html.parser.HTMLParser):
    """Checks that tags are balanced and collects them."""

    void = {"meta", "img", "input", "br"}
    svg_void = {"rect", "line", "polyline", "polygon", "circle"}

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.text = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        assert tag in self.svg_void
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text.append(data)


def data_of(text):
    """What the page's script knows."""
    (data,) = re.findall('<script type="application/json" id="data">(.*?)</script>', text)
    return json.loads(data)


def test_page_is_complete_and_self_contained(tmp_path):
    tmp_path = tmp_path / "te<st> @@rows@@"
    make_run(tmp_path)
    path = write_report(tmp_path)
    text = path.read_text()
    page = Page(text)
    assert path == tmp_path / "report.html"
    for tag, attributes in page.tags:
        assert tag not in ("link", "iframe", "object", "embed", "base")
        for key in ("src", "href", "srcset", "data", "action"):
            assert attributes.get(key, "#").startswith(("data:", "#")), (tag, key)
        assert not any(key.startswith("on") for key in attributes)
    assert "@import" not in text and not re.search(r"url\((?!#)", text)
    content = "".join(page.text)
    assert "AC-RE · te<st> @@rows@@" in content and "<img src=0" not in text
    assert "too <hard>" in content and "cannot read broken<b>.png: replace it" in content
    assert "All 3 results." in content and "3 counterfactuals" in content
    assert "66.7% of 3 images reach 0.5 within 0.05 (95% interval " in content
    assert "1 does not: 1 × too <hard>. 1 input could not be explained." in content
    assert "def get_config():" in content and "diffcf explain --config config.py" in content
    data = data_of(text)
    rows = {row["name"]: row for row in read_results(tmp_path)}
    assert [case["success"] for case in data["cases"]] == [False, True, True]
    for case in data["cases"]:
        row = rows[case["id"]]
        assert (case["after"], case["target"]) == (row["y_final"], row["target"])
        assert case["distance"] == pytest.approx(abs(row["y_final"] - 0.5))
        assert case["curve"] == pytest.approx(row["curve"], rel=1e-4)
    # After against before, because there is one target.
    points = [a for tag, a in page.tags if tag == "circle" and "data-case" in a]
    assert sorted(a["data-case"] for a in points) == ["0", "1", "2"]


def test_values_show_their_unit(tmp_path):
    config = {"method": {"name": "ac-re", "threshold": 5.0}, "regressor": {"unit": "years <b>"}}
    make_run(tmp_path, n=1, config=config)
    text = write_report(tmp_path).read_text()
    content = " ".join("".join(Page(text).text).split())
    assert "≤ ±5 years <b>" in content and "0.500 years <b>" in content
    assert "prediction (years <b>)" in content and "reaches 0.5 years <b> within 5" in content
    assert "0.1000 years <b>" in content  # the mean distance to the target
    assert data_of(text)["unit"] == "years <b>"


@pytest.mark.parametrize(
    ("values", "digits"), [([0.4, 0.9], 3), ([None, 81.0, -9.0], 1), ([5000.0], 0), ([0.002], 6)]
)
def test_digits_follow_the_size_of_the_values(values, digits):
    assert digits_of(values) == digits


def test_small_images_are_embedded_exactly(tmp_path):
    make_run(tmp_path, n=1)
    data = data_of(write_report(tmp_path).read_text())
    row = read_results(tmp_path)[0]
    for key in ("input", "reconstruction", "cf"):
        image = data["images"][data["cases"][0]["pictures"][key]]
        assert image["sharp"]
        shown = base64.b64decode(image["source"].removeprefix("data:image/png;base64,"))
        shown = np.asarray(Image.open(io.BytesIO(shown)))
        np.testing.assert_array_equal(shown, np.asarray(Image.open(tmp_path / row[key])))


def test_large_images_become_thumbnails(tmp_path):
    make_run(tmp_path, n=1, size=300)
    data = data_of(write_report(tmp_path).read_text())
    image = data["images"][data["cases"][0]["pictures"]["cf"]]
    source = base64.b64decode(image["source"].removeprefix("data:image/webp;base64,"))
    assert Image.open(io.BytesIO(source)).size == (256, 256) and not image["sharp"]


def test_limit_is_told(tmp_path):
    make_run(tmp_path)
    text = write_report(tmp_path, limit=2).read_text()
    assert "The first 2 of 3 results, failures first; the other 1 are in results.jsonl" in text
    assert len(data_of(text)["cases"]) == 2


def test_run_without_any_result(tmp_path):
    make_run(tmp_path, n=0)
    text = write_report(tmp_path).read_text()
    Page(text)
    assert "Nothing was explained." in text and "1 input could not be explained." in text


def test_a_damaged_folder_still_has_a_page_that_says_so(tmp_path):
    make_run(tmp_path)
    rows = read_results(tmp_path)
    (tmp_path / rows[0]["cf"]).unlink()
    (tmp_path / rows[1]["input"]).write_bytes(b"\x89PNG")
    (tmp_path / "summary.json").write_text("{")
    (tmp_path / "metrics.json").write_text("[]")
    (tmp_path / "metrics_of_results.csv").write_text("name\nx\n")
    with open(tmp_path / "results.jsonl", "a") as log:
        log.write('{"id": 7, "version": 9}\n')
    text = write_report(tmp_path).read_text()
    content = html.unescape("".join(Page(text).text))
    assert 'results.jsonl line 5 is broken ("name" is missing)' in content
    assert "summary.json is broken" in content and "more files cannot be shown" in content
    cases = data_of(text)["cases"]
    missing = [[key for key, i in case["pictures"].items() if i is None] for case in cases]
    assert missing == [["cf"], ["input"], []] and "An image is missing" in cases[0]["words"]
    (tmp_path / "results.jsonl").unlink()
    with pytest.raises(UserError, match=r"cannot read .*results\.jsonl"):
        write_report(tmp_path)


def test_runs_that_can_show_little_say_so(tmp_path):
    make_run(tmp_path)
    rows = read_results(tmp_path)
    for row in rows[:3]:
        row |= {"success": False, "reason": "stuck", "y_final": 0.1}
    write_results(tmp_path, rows)
    (tmp_path / "summary.json").unlink()
    text = html.unescape(write_report(tmp_path).read_text())
    assert "None of 3 images reach 0.5 within 0" in text and "The threshold of success" in text
    assert "All predictions are equal (0.1)" in text and "3 do not: 3 × stuck." in text
    write_results(tmp_path, [{**rows[0], "y_final": None, "curve": [None]}])
    text = write_report(tmp_path).read_text()
    assert "One image was explained" in text and "1 of 1 predictions are not finite" in text


def test_the_page_counts_what_the_log_holds(tmp_path):
    make_run(tmp_path)
    rows = read_results(tmp_path)[1:3]  # those that reach their targets
    write_results(tmp_path, [row | {"codes": "a.npy", "latent_change": 1.0} for row in rows])
    text = write_report(tmp_path).read_text()
    assert "100% of 2 images reach 0.5 within 0.05" in html.unescape(text)
    assert data_of(text)["groups"] == []


def test_the_config_file_is_the_config():
    config = {"data": {"name": "squares", "limit": None}, "seed": 3, "targets": "a'b\\n\"c"}
    names = {}
    exec(config_file(config), names)
    assert names["get_config"]().to_dict() == config
    assert again(config) and again({"data": {"name": "arrays"}}) is None


def test_a_picture_from_outside_is_not_shown(tmp_path):
    out = tmp_path / "out"
    make_run(out)
    rows = read_results(out)
    victim = tmp_path / "victim.png"
    victim.write_bytes((out / rows[0]["cf"]).read_bytes())
    write_results(out, [{**rows[0], "cf": str(victim)}, *rows[1:]])
    text = write_report(out).read_text()
    assert "leads out of" in text and data_of(text)["cases"][0]["pictures"]["cf"] is None


def test_metrics_stand_beside_their_control_and_the_paper(tmp_path):
    make_run(tmp_path)
    mean = {"mean": 0.25, "low": 0.2, "high": 0.3, "n": 3}
    metrics = {
        "metrics": {"l1": mean, "oracle_success_rate": {**mean, "mean": 0.5}, "bad": 3},
        "control": {
            "l1": {**mean, "mean": 0.125},
            "success_rate": {**mean, "mean": 1.0},
            "oracle_success_rate": {**mean, "mean": 0.75},
        },
        "definitions": {"l1": {"about": "mean |x' - x|", "better": "lower", "reference": "us"}},
        "published": {"l1": 0.75},
        "not_computed": {"fva": "identity: FILE"},
    }
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    lines = [f'"{row["name"]}"'.replace('"alert(1)"', '""alert(1)""') + f",{row['target']},1,0.5"
             for row in read_results(tmp_path)[:3]]  # fmt: skip
    (tmp_path / "metrics_of_results.csv").write_text("\n".join(["name,target,answer,l1", *lines]))
    text = write_report(tmp_path).read_text()
    content = " ".join("".join(Page(text).text).split())
    assert "l1 ↓mean |x' - x| (us)0.25000.2000 to 0.30000.12500.753" in content
    assert "; the oracle agrees in 50% (95% interval 20% to 30%)." in content
    assert "pixel attack with as many gradients reaches 100%; the oracle agrees in 75%." in content
    assert "fva needs identity: FILE" in content
    assert [case["metrics"] for case in data_of(text)["cases"]] == [{"l1": 0.5}] * 3


def test_the_policy_names_the_hashes_of_what_is_inline(tmp_path):
    make_run(tmp_path)
    text = write_report(tmp_path).read_text()
    ((policy, _),) = [
        (a["content"], tag) for tag, a in Page(text).tags if "Content-Security" in str(a)
    ]
    assert policy.startswith("default-src 'none'; img-src data:; ")
    for tag in ("style", "script"):
        (content,) = re.findall(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}';" in policy
