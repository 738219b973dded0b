"""The report: complete, self-contained, safe."""

import base64
import hashlib
import html.parser
import io
import re

import pytest
from PIL import Image

from diffcf_jax.errors import UserError
from diffcf_jax.report.html import _digits, write_report
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
    assert "AC-RE · te<st> @@rows@@" in content and "&lt;img src=0" in text
    for name in [row["name"] for row in read_results(tmp_path)]:
        assert name in content
    assert "too <hard>" in content and "cannot read broken<b>.png: replace it" in content
    assert "All 3 results." in content and "3 counterfactuals" in content
    assert sum(a.get("class") == "open" for _, a in page.tags) == 3
    assert sum(a.get("class") == "curve" for _, a in page.tags) == 3
    labels = [a["data-label"] for _, a in page.tags if "data-label" in a]
    assert labels[:3] == ["Image", "Input", "Reconstruction"] and len(labels) == 3 * 12
    last = {a["data-label"]: a["data-v"] for _, a in page.tags if "data-label" in a}
    keys = ("Input", "Reconstruction", "Target", "Before", "After", "Success", "Iterations")
    assert [last[key] for key in keys] == ["0.1", "", "0.5", "0.1", "0.6", "1", "7"]


def test_values_show_their_unit(tmp_path):
    config = {"method": {"name": "ac-re", "threshold": 5.0}, "regressor": {"unit": "years <b>"}}
    make_run(tmp_path, n=1, config=config)
    page = Page(write_report(tmp_path).read_text())
    content = " ".join("".join(page.text).split())
    assert "predicted 0.100 years <b>" in content and "true 0.100 years <b>" in content
    assert "predicted –" in content and "predicted – years" not in content
    assert "within ±5 years <b> of the target" in content
    assert "target (years <b>)" in content and "prediction (years <b>)" in content
    assert "0.1000 years <b>" in content  # the mean distance to the target
    labels = [a["data-label"] for _, a in page.tags if "data-label" in a]
    assert labels[5:9] == [f"{x} (years <b>)" for x in ("Target", "Before", "After", "Distance")]


@pytest.mark.parametrize(
    ("values", "digits"), [([0.4, 0.9], 3), ([None, 81.0, -9.0], 1), ([5000.0], 0), ([0.002], 6)]
)
def test_digits_follow_the_size_of_the_values(values, digits):
    assert _digits(values) == digits


def test_small_images_are_embedded_exactly(tmp_path):
    make_run(tmp_path, n=1)
    images = [a for tag, a in Page(write_report(tmp_path).read_text()).tags if tag == "img"]
    row = read_results(tmp_path)[0]
    assert [image["loading"] for image in images] == ["lazy"] * 4
    for image, key in zip(images, ("input", "reconstruction", "cf", "heatmap"), strict=True):
        assert image["class"] == "sharp"
        data = base64.b64decode(image["src"].removeprefix("data:image/png;base64,"))
        assert data == (tmp_path / row[key]).read_bytes()


def test_large_images_become_thumbnails(tmp_path):
    make_run(tmp_path, n=1, size=256)
    images = [a for tag, a in Page(write_report(tmp_path).read_text()).tags if tag == "img"]
    data = base64.b64decode(images[0]["src"].removeprefix("data:image/webp;base64,"))
    assert Image.open(io.BytesIO(data)).size == (192, 192)
    assert images[0].get("class") is None


def test_limit_is_told(tmp_path):
    make_run(tmp_path)
    text = write_report(tmp_path, limit=2).read_text()
    assert "The first 2 of 3 results; the other 1 left out" in text
    assert text.count('class="open"') == 2


def test_run_without_any_result(tmp_path):
    make_run(tmp_path, n=0)
    text = write_report(tmp_path).read_text()
    Page(text)
    assert "0 counterfactuals" in text and "1 input failed" in text


def test_missing_files_are_named(tmp_path):
    make_run(tmp_path, n=1)
    cf = tmp_path / read_results(tmp_path)[0]["cf"]
    cf.unlink()
    with pytest.raises(UserError, match=r"cannot read .*/cf/.*: No such file"):
        write_report(tmp_path)
    cf.write_bytes(b"\x89PNG")
    with pytest.raises(UserError, match=r"cannot read .*not a readable image"):
        write_report(tmp_path)
    (tmp_path / "summary.json").write_text("{")
    with pytest.raises(UserError, match=r"summary\.json is broken"):
        write_report(tmp_path)


def test_a_picture_from_outside_is_not_shown(tmp_path):
    out = tmp_path / "out"
    make_run(out)
    rows = read_results(out)
    victim = tmp_path / "victim.png"
    victim.write_bytes((out / rows[0]["cf"]).read_bytes())
    write_results(out, [{**rows[0], "cf": str(victim)}, *rows[1:]])
    with pytest.raises(UserError, match="victim.png. leads out of .*out"):
        write_report(out)


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
