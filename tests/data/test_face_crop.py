"""The crop of CelebA-HQ, against a square by hand and against the originals' own crop."""

import numpy as np
import pytest
from PIL import Image

from diffcf_jax.data.face_crop import crop_face, face_corners


def photo(width, height):
    y, x = np.mgrid[:height, :width]
    channels = [255 * x // (width - 1), 255 * y // (height - 1), (7 * x + 3 * y) % 256]
    return Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8))


def face(centre, scale, angle):
    points = scale * np.array([[-3, 0], [3, 0], [0, 3.5], [-2.5, 7], [2.5, 7]])
    cos, sin = np.cos(angle), np.sin(angle)
    return points @ np.array([[cos, sin], [-sin, cos]]) + centre


def test_corners_by_hand():
    # Eyes 20 apart and 30 above the mouth: half a side is max(2 * 20, 1.8 * 30) = 54. The centre
    # lies 3 below that of the eyes, which is (50, 40) plus half a pixel.
    landmarks = [[40, 40], [60, 40], [50, 55], [42, 70], [58, 70]]
    expected = [[-3.5, -10.5], [-3.5, 97.5], [104.5, 97.5], [104.5, -10.5]]
    np.testing.assert_allclose(face_corners(landmarks), expected, atol=1e-9)
    # Wide eyes decide on the size: 2 * 40.
    wide = [[30, 40], [70, 40], [50, 55], [42, 70], [58, 70]]
    assert np.ptp(face_corners(wide), axis=0) == pytest.approx([160, 160])


def test_corners_turn_and_grow_with_the_face():
    upright = face_corners(face((0, 0), 1, 0)) - 0.5
    turned = face_corners(face((10, 20), 3, np.pi / 2)) - 0.5
    np.testing.assert_allclose(turned, 3 * upright[:, ::-1] * [-1, 1] + [10, 20], atol=1e-9)


# Means of the four quarters of the crop by the originals, made for 64 instead of 1024 pixels.
QUARTERS = {
    "inside": (
        photo(300, 240), face((150, 90), 6, 0.1),
        [[98.228, 55.911, 128.658], [162.388, 63.952, 127.428],
         [91.793, 136.139, 126.687], [155.958, 144.189, 129.115]],
    ),
    "leaves the photo": (
        photo(60, 50), face((30, 20), 3, -0.3),
        [[54.855, 70.384, 113.911], [175.583, 58.293, 123.669],
         [86.673, 195.831, 130.134], [202.298, 170.13, 156.327]],
    ),
    "enlarged": (
        photo(40, 40), face((20, 15), 0.7, 0.0),
        [[101.844, 72.219, 143.126], [159.5, 72.219, 204.711],
         [101.844, 129.875, 169.588], [159.5, 129.875, 198.102]],
    ),
    "shrunk": (
        photo(600, 500), face((300, 200), 12, 0.0),
        [[95.0, 67.281, 126.038], [159.406, 67.281, 125.96],
         [95.0, 144.469, 126.308], [159.406, 144.469, 126.169]],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", QUARTERS)
def test_crop_of_the_originals(case):
    image, landmarks, expected = QUARTERS[case]
    crop = np.asarray(crop_face(image, landmarks, size=64))
    assert crop.shape == (64, 64, 3) and crop.dtype == np.uint8
    means = crop.reshape(2, 32, 2, 32, 3).mean((1, 3)).reshape(4, 3)
    np.testing.assert_allclose(means, expected, atol=0.02)
