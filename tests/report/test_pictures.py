"""Changes as pictures and in words, and their averages."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from diffcf_jax.files import encode_png
from diffcf_jax.report.cases import make_cases
from diffcf_jax.report.pictures import (
    Album,
    average_maps,
    colours,
    encode,
    load,
    outline,
    scale_of,
    thumbnail_side,
)
from diffcf_jax.results.writer import ResultWriter
from tests.results.made import make_counterfactual, make_record


def pixels(image):
    data = base64.b64decode(image["source"].partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGBA"))


@pytest.fixture
def changed(tmp_path):
    """A function that loads the change of a grey image of 9 x 9 by what is added to it."""

    def change(difference):
        before = np.full((9, 9, 3), 100, np.uint8)
        for key, image in (
            ("input", before),
            ("cf", (before.astype(int) + difference).astype(np.uint8)),
        ):
            (tmp_path / key).write_bytes(encode_png(image))
        loaded = load(tmp_path, {"input": "input", "cf": "cf"}, ("input", "cf"), 256)
        assert loaded.faults == []
        return loaded.change

    return change


def test_a_change_in_numbers_and_words(changed):
    difference = np.zeros((9, 9, 1), int)
    difference[6:8, :3] = 51  # 0.2
    difference[0, 8] = -7  # too little to count as changed
    change = changed(difference)
    assert change.area == pytest.approx(6 / 81) and change.mean == pytest.approx(0.2)
    assert change.place == "lower left" and change.share == pytest.approx(306 / 313)
    assert change.words() == (
        "7.4% of the image changed by 8/255 or more, on average 0.200 brighter (full range 1); "
        "98% of the change lies in the lower left ninth of the image."
    )
    assert "0.039 darker (full range 1); the change is spread" in changed(-10).words()
    assert changed(3).words() == "No pixel changed by 8/255 or more."
    assert changed(0).words() == "Nothing changed."


def test_colours_are_signed_on_one_scale():
    d = np.array([[0.0, 0.1, -0.2, 0.9]])
    unchanged, half, darker, beyond = pixels(colours(d, 0.2))[0].astype(int)
    assert unchanged[3] == 0 and darker[3] == beyond[3] == 255 and abs(half[3] - 127) <= 2
    assert half[0] > half[2] and beyond[0] > beyond[2] and darker[2] > darker[0]
    # A tenth of the images may exceed the scale.
    assert scale_of([np.array([x]) for x in [-0.1] * 10 + [1.0]]) == pytest.approx(0.1)
    assert scale_of([]) == 1.0


def test_a_mask_is_outlined():
    mask = np.zeros((6, 6), np.uint8)
    mask[1:5, 2:6] = 255
    shown = pixels(outline(mask))[..., 3] > 0
    assert shown.sum() == 12 and not shown[2:4, 3:5].any() and shown[1, 2] and shown[4, 5]


def test_maps_are_averaged_by_range_of_predictions(changed):
    up, down = changed(51), changed(-51)
    maps, scale = average_maps([0.0, 0.05, 0.9, 1.0], [up, up, down, up], most=2)
    assert [(m["low"], m["high"], m["n"]) for m in maps] == [(0, 0.5, 2), (0.5, 1, 2)]
    assert scale == pytest.approx(0.2)
    first, second = (pixels(m["image"]) for m in maps)
    assert (first[..., 3] == 255).all() and (second[..., 3] == 0).all()  # they cancel
    (only,), _ = average_maps([0.3, 0.3], [up, up])
    assert only["low"] == only["high"] == 0.3 and only["n"] == 2
    where = np.zeros((9, 9, 3), int)
    where[:3, 6:], where[4, 4] = 40, -60
    ((only,), _) = average_maps([0.3], [changed(where)])
    assert (only["brighter"], only["darker"]) == ("upper right", "central")
    ((only,), _) = average_maps([0.3], [up])
    assert only["brighter"] and only["darker"] is None


def test_images_are_kept_once_and_small():
    album = Album()
    grey = np.full((400, 300, 3), 7, np.uint8)
    thumbnail = encode(grey, 200)
    assert (thumbnail["width"], thumbnail["height"], thumbnail["sharp"]) == (150, 200, False)
    assert [album.add(thumbnail), album.add(None), album.add(encode(grey, 200))] == [0, None, 0]
    assert [thumbnail_side(n) for n in (150, 400, 1000, 3000)] == [256, 192, 128, 96]


def test_what_cannot_be_read_is_named(tmp_path):
    (tmp_path / "input").write_bytes(encode_png(np.zeros((4, 4, 3), np.uint8)))
    loaded = load(tmp_path, {"input": "input", "cf": "../cf"}, ("input", "cf"), 96)
    assert loaded.change is None and list(loaded.images) == ["input"]
    assert "leads out of" in loaded.faults[0]


def test_a_case_shows_the_mask_of_its_run(tmp_path):
    allowed = np.zeros((8, 8), bool)
    allowed[2:6, 3:7] = True
    record = make_record(mask=np.ones((8, 8), bool))  # where the square is, which gives way
    with ResultWriter(tmp_path, ["a.png"]) as writer:
        row = writer.save(record, 0.7, make_counterfactual(), 1.0, allowed=allowed)
    cases = make_cases(tmp_path, [row], {})
    (item,) = cases.items
    shown = cases.images[item["pictures"]["mask"]]
    assert shown == outline(255 * allowed.astype(np.uint8))
