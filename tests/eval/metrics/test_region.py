"""Figures of the part that masks left free, with networks that only look at pixels."""

import numpy as np
import pytest

from diffcf_jax.data.record import Record
from diffcf_jax.errors import UserError
from diffcf_jax.files import encode_png
from eval.metrics.batch import Batch, batches
from eval.metrics.distances import frechet_distance
from eval.metrics.measure import measure
from eval.metrics.metric import SETS, definition
from eval.metrics.plan import Plan
from eval.metrics.region import box, regions
from eval.metrics.regressor import validity
from tests.eval.metrics.test_evaluate import write_run

ALLOWED = np.zeros((16, 16), bool)
ALLOWED[2:6, 8:16] = True
ALLOWED[3, 9] = False  # a hole: the box counts


def test_the_box_of_a_mask():
    assert box(ALLOWED) == (slice(2, 6), slice(8, 16))
    assert box(np.zeros((4, 4), bool)) == (slice(None), slice(None))


def test_a_region_is_an_image_of_its_own():
    image = np.zeros((1, 16, 16, 3), np.float32)
    image[0, 2:6, 8:16] = 51 / 255
    image[0, 2:6, 8:12, 0] = 1
    (found,) = regions(Batch([], image, image, None, ALLOWED[None]), image)
    assert found.shape == (16, 16, 3)
    # Nothing of the black around the box, and a step in the middle of the red.
    np.testing.assert_allclose(found[..., 1:], 51 / 255, atol=1e-6)
    np.testing.assert_allclose(found[:, :5, 0], 1, atol=1e-6)
    np.testing.assert_allclose(found[:, 11:, 0], 51 / 255, atol=1e-6)


def look(images):
    return images[:, ::8, ::8].reshape(len(images), -1)


def test_region_fid_sees_the_boxes_alone(tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (2, 9, 16, 16, 3), np.uint8)
    y = np.where(ALLOWED[..., None], y, x)
    pairs = [
        (Record(i, f"{i}.png", a, target=0.5), b / np.float32(255))
        for i, (a, b) in enumerate(zip(x, y, strict=True))
    ]
    rows = write_run(tmp_path, pairs, {}, allowed=ALLOWED)
    assert {row["mask"] for row in rows} == {f"allowed/{i}.png" for i in range(9)}
    plan = Plan([validity(0.05)], {"inception": look, "own": look}, full=True)

    def measured(rows):
        return measure(batches(tmp_path, rows, False), lambda x: x.mean((1, 2, 3)), plan).sets

    found = measured(rows)
    (batch,) = batches(tmp_path, rows, False)
    expected = frechet_distance(*(look(regions(batch, z / np.float32(255))) for z in (x, y)))
    assert found["fid_region"] == pytest.approx(expected, rel=1e-6)
    assert found["fd_region_own"] == found["fid_region"] > found["fid"]
    assert definition("fd_region_own") == SETS["fd_region"] and definition("fd_own") == SETS["fd"]
    # Where some images could change everywhere, there is no region.
    assert not [name for name in measured([{**rows[0], "mask": None}, *rows[1:]]) if "reg" in name]
    (tmp_path / "allowed" / "3.png").write_bytes(encode_png(np.zeros((4, 4), np.uint8)))
    with pytest.raises(UserError, match=r"allowed/3\.png is no mask of the images' size: run .*"):
        measured(rows)
