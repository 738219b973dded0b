"""Masks: where images may change, and the controls to compare with."""

import numpy as np
import pytest
from PIL import Image

from diffcf_jax.data.folder import ImageFolder
from diffcf_jax.data.masks import Masks, control_mask
from diffcf_jax.errors import UserError

SIZE = 8
IMAGE = np.full((SIZE, SIZE, 3), 90, np.uint8)
LEFT = np.zeros((SIZE, SIZE), bool)
LEFT[:, :3] = True


def masks(records=None, **data):
    return Masks(data, records, SIZE, seed=0)


def save(path, mask, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(mask, np.uint8) * 255).save(path, **options)


def test_without_a_mask_everything_may_change():
    assert masks().of("a.png", IMAGE) is None
    assert masks(masks="", mask="", mask_control="").of("a.png", IMAGE) is None


def test_a_box():
    mask = masks(mask=" 1, 2, 4, 8").of("a.png", IMAGE)
    assert mask.sum() == 3 * 6 and mask[2:8, 1:4].all()


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".gif", ".tif", ".webp"])
def test_a_folder_of_any_format(tmp_path, suffix):
    save(tmp_path / f"below/a{suffix}", LEFT)
    save(tmp_path / "lower_1.png", ~LEFT)
    folder = masks(masks=str(tmp_path))
    np.testing.assert_array_equal(folder.of("below/a.jpg", IMAGE), LEFT)
    np.testing.assert_array_equal(folder.of("lower_1", IMAGE), ~LEFT)  # the squares have no suffix
    with pytest.raises(UserError, match=r"^b\.png has no mask: add one"):
        folder.of("b.png", IMAGE)


def test_a_mask_is_converted_as_its_image(tmp_path):
    wide = np.zeros((16, 24), bool)  # the square in the middle is columns 4 to 20
    wide[:, 4:10] = True
    save(tmp_path / "masks/a.png", wide)
    save(tmp_path / "images/a.png", np.ones((16, 24)))
    records = ImageFolder(tmp_path / "images", SIZE, convert=True)
    mask = masks(records, masks=str(tmp_path / "masks")).of("a.png", IMAGE)
    np.testing.assert_array_equal(mask, LEFT)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"mask": "1,2,3"}, "config.data.mask='1,2,3' is no box"),
        ({"mask": "5,0,2,8"}, "is no box"),
        ({"mask": "0,0,9,8"}, "reaches beyond the images of 8x8 pixels"),
        ({"mask": "-1,0,4,4"}, "is no box"),
        ({"masks": "nowhere"}, "nowhere does not exist: set --config.data.masks"),
        ({"masks": "a", "mask": "0,0,1,1"}, "Both config.data.masks and config.data.mask"),
        ({"mask_control": "random"}, "config.data.mask_control=random needs a mask"),
        ({"mask": "0,0,1,1", "mask_control": "other"}, "must be inverse or random"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_read(data, message):
    with pytest.raises(UserError, match=message):
        masks(**data)


def test_what_is_wrong_with_one_mask(tmp_path):
    save(tmp_path / "small.png", np.ones((4, 8)))
    save(tmp_path / "black.png", np.zeros((SIZE, SIZE)))
    (tmp_path / "text.png").write_text("no image")
    folder = masks(masks=str(tmp_path))
    with pytest.raises(UserError, match=r"small\.png is of 8x4 pixels and its image of 8x8"):
        folder.of("small.jpg", IMAGE)
    with pytest.raises(UserError, match=r"black\.png is nowhere white"):
        folder.of("black.jpg", IMAGE)
    with pytest.raises(UserError, match=r"text\.png cannot be read as an image"):
        folder.of("text.jpg", IMAGE)
    save(tmp_path / "small.bmp", LEFT)
    with pytest.raises(UserError, match=r"two masks of one image"):
        masks(masks=str(tmp_path))


def test_controls():
    np.testing.assert_array_equal(control_mask(LEFT, "inverse", IMAGE, 0, "a"), ~LEFT)
    with pytest.raises(UserError, match="a is white everywhere"):
        control_mask(LEFT | True, "inverse", IMAGE, 0, "a")
    drawn = [control_mask(LEFT, "random", IMAGE, 0, "a") for _ in range(2)]
    np.testing.assert_array_equal(*drawn)
    others = [control_mask(LEFT, "random", IMAGE + i, s, "a") for i in range(3) for s in range(3)]
    assert all(mask.sum() == LEFT.sum() for mask in others)
    assert len({mask.tobytes() for mask in others}) > 3
