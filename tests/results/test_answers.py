"""Several answers for one image and target on disk, in the report and in the metrics."""

import json

import numpy as np
import pytest

from diffcf_jax.files import read_image
from diffcf_jax.report.html import write_report
from diffcf_jax.results.answers import pairwise_distances, together
from diffcf_jax.results.log import image_path, order_of, read_results
from diffcf_jax.results.summary import summarise, write_summary
from diffcf_jax.results.writer import ResultWriter
from eval.metrics.sweep import diversity
from tests.results.made import make_counterfactual, make_record

GREYS = {1: 0.0, 2: 51 / 255, 3: 1.0}


@pytest.fixture
def folder(tmp_path):
    """Two images, one of them with three answers of one grey each."""
    with ResultWriter(tmp_path, ["a.png", "b.png"]) as writer:
        writer.save(make_record(1, "b.png"), 0.5, make_counterfactual(), 1.0)
        for answer in (2, 3, 1):
            image = np.full((8, 8, 3), GREYS[answer], np.float32)
            found = make_counterfactual(image=image)
            writer.save(make_record(), 0.5, found, 1.0, answer=answer)
    config = {"method": {"name": "diffae-re", "threshold": 0.05}}
    write_summary(tmp_path, summarise(read_results(tmp_path), config, 1.0, {}))
    return tmp_path


def test_each_answer_has_a_line_and_files_of_its_own(folder):
    rows = sorted(read_results(folder), key=order_of)
    assert [(row["name"], row["answer"]) for row in rows] == [
        *(("a.png", k) for k in (1, 2, 3)), ("b.png", 1),
    ]  # fmt: skip
    assert [row["cf"] for row in rows[:3]] == [
        "cf/a.png", "cf/a_answer_2.png", "cf/a_answer_3.png",
    ]  # fmt: skip
    assert {row["input"] for row in rows[:3]} == {"input/a.png"}
    with ResultWriter(folder, ["a.png", "b.png"]) as writer:
        assert writer.finished() == {*(("a.png", 0.5, k) for k in (1, 2, 3)), ("b.png", 0.5, 1)}


def test_an_answer_that_cannot_be_saved_stands_beside_the_others(tmp_path):
    with ResultWriter(tmp_path, ["a.png"]) as writer:
        writer.save(make_record(), 0.5, make_counterfactual(), 1.0)
        writer.save_error(0, "a.png", 0.5, "not finite", answer=2)
    assert ["error" in row for row in read_results(tmp_path)] == [False, True]


def test_lines_of_before_there_were_answers_are_first_ones(folder):
    path = folder / "results.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    del rows[0]["answer"]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert next(row for row in read_results(folder) if row["name"] == "b.png")["answer"] == 1


def test_distances_and_diversity(folder):
    (group,) = together(read_results(folder))
    assert [row["answer"] for row in group] == [1, 2, 3]
    images = [np.full((2, 2, 3), 255 * grey, np.uint8) for grey in GREYS.values()]
    expected = {(0, 1): 0.2, (0, 2): 1.0, (1, 2): 0.8}
    assert pairwise_distances(images) == pytest.approx(expected)
    found = diversity(group, lambda i: read_image(image_path(folder, group[i], "cf")))
    assert found["diversity"]["mean"] == pytest.approx(2 / 3) and found["diversity"]["n"] == 1
    assert diversity(group[:1], None) == {}


def test_the_report_shows_them_side_by_side(folder):
    page = write_report(folder).read_text()
    start = page.index("<h2>Several answers</h2>")
    section = page[start : page.index("</section>", start)]
    assert section.count("<img") == 4 and "<h3>a.png · target 0.500</h3>" in section
    assert "1 to 2 0.200, 1 to 3 1.000, 2 to 3 0.800." in section
    assert '"id":"a.png~2"' in page and '"id":"b.png~1"' in page
