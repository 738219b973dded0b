"""Heatmaps, curves and the overview."""

import xml.etree.ElementTree as ElementTree

import numpy as np

from diffcf_jax.report.figures import curve_svg, heatmap, overview_svg, ticks


def test_heatmap_colours():
    image = np.array([[[0, 0, 0], [255, 255, 255], [100, 100, 100], [0, 0, 0], [255, 0, 0]]])
    after = np.array([[[255, 255, 255], [0, 0, 0], [100, 100, 100], [51, 102, 0], [0, 255, 0]]])
    colours = heatmap(image.astype(np.uint8), after.astype(np.uint8))[0].tolist()
    red, blue, white = [255, 0, 0], [0, 0, 255], [255, 255, 255]
    # 51 and 102 of 255 in one channel each: d = 0.2. The last pixel's channels cancel.
    assert colours == [red, blue, white, [255, 204, 204], white]


def test_curve_draws_what_is_known():
    svg = ElementTree.fromstring(curve_svg([0.0, None, 0.5, 1.0], target=1.0, threshold=0.05))
    points = [p.split(",") for p in svg.find("polyline").get("points").split()]
    x, y = np.array(points, float).T
    assert len(x) == 3 and np.allclose(np.diff(x), [2 * 142 / 3, 142 / 3], atol=0.1)
    assert np.all(np.diff(y) < 0)  # upwards
    band = svg.find("rect")
    top, height = float(band.get("y")), float(band.get("height"))
    assert abs(y[-1] - (top + height / 2)) < 0.11  # ends in the middle of the band
    assert curve_svg([], 1.0) == "" and curve_svg([None], 1.0) == ""
    assert ElementTree.fromstring(curve_svg([0.5], 0.5)) is not None


def test_overview_has_a_point_for_each_known_prediction():
    results = [
        {"target": 0.2, "y_initial": 0.7, "y_final": 0.21},
        {"target": 0.8, "y_initial": None, "y_final": 0.75},
    ]
    circles = ElementTree.fromstring(overview_svg(results, 0.05)).findall("circle")
    assert [c.get("class") for c in circles] == ["before", "after", "after"]
    assert overview_svg([], 0.05) == ""
    assert overview_svg([{"target": 0.5, "y_initial": 0.5, "y_final": 0.5}]) != ""


def test_ticks_are_round_and_few():
    assert ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1]
    assert ticks(-0.03, 0.94) == [0, 0.2, 0.4, 0.6, 0.8]
    assert ticks(18, 81) == [20, 30, 40, 50, 60, 70, 80]
    for low, high in [(0, 0.001), (-5, 7), (0.499, 0.501), (3, 1234), (0, 9.99)]:
        assert 2 <= len(ticks(low, high)) <= 8
