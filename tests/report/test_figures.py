"""Heatmaps and the overview."""

import xml.etree.ElementTree as ElementTree

import numpy as np

from diffcf_jax.report.figures import heatmap, overview_svg, ticks


def test_heatmap_colours():
    image = np.array([[[0, 0, 0], [255, 255, 255], [100, 100, 100], [0, 0, 0], [255, 0, 0]]])
    after = np.array([[[255, 255, 255], [0, 0, 0], [100, 100, 100], [51, 102, 0], [0, 255, 0]]])
    colours = heatmap(image.astype(np.uint8), after.astype(np.uint8))[0].tolist()
    red, blue, white = [255, 0, 0], [0, 0, 255], [255, 255, 255]
    # 51 and 102 of 255 in one channel each: d = 0.2. The last pixel's channels cancel.
    assert colours == [red, blue, white, [255, 204, 204], white]


def test_overview_has_a_point_for_each_known_prediction():
    results = [
        {"target": 0.2, "y_initial": 0.7, "y_final": 0.21},
        {"target": 0.8, "y_initial": None, "y_final": 0.75},
    ]
    circles = ElementTree.fromstring(overview_svg(results, 0.05)).findall("circle")
    assert [c.get("class") for c in circles] == ["before", "after", "after"]
    assert overview_svg([], 0.05) == ""
    # With one target, the prediction after stands against that before.
    alike = [{"target": 0.5, "y_initial": y, "y_final": 0.5} for y in (0.1, 0.9)]
    circles = ElementTree.fromstring(overview_svg(alike, 0.05)).findall("circle")
    assert [c.get("class") for c in circles] == ["after", "after"]
    assert circles[0].get("cx") != circles[1].get("cx")
    assert overview_svg([{"target": 0.5, "y_initial": 0.5, "y_final": 0.5}]) != ""


def test_ticks_are_round_and_few():
    assert ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1]
    assert ticks(-0.03, 0.94) == [0, 0.2, 0.4, 0.6, 0.8]
    assert ticks(18, 81) == [20, 30, 40, 50, 60, 70, 80]
    for low, high in [(0, 0.001), (-5, 7), (0.499, 0.501), (3, 1234), (0, 9.99)]:
        assert 2 <= len(ticks(low, high)) <= 8
