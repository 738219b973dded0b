"""The crop of CelebA-HQ: an upright square around a face, from five landmarks.

Reference: Karras et al., 2018 (arXiv:1710.10196, appendix C) and their `dataset_tool.py`.
"""

import numpy as np
import scipy.ndimage
from PIL import Image


def face_corners(landmarks: np.ndarray) -> np.ndarray:
    """Corners of the square around a face.

    With the eyes' distance e, the centres E of the eyes and M of the mouth, v = M - E and R the
    rotation by 90 degrees: the square's centre is E + 0.1 v, half its side is max(2 |e|, 1.8 |v|),
    and its upper side points along e - R v.

    Args:
        landmarks: [5, 2], x and y in pixels: left eye, right eye, nose (unused), left and right
            corner of the mouth; left is left in the image.

    Returns:
        float64 [4, 2], x and y of the upper left, lower left, lower right and upper right corner.
    """
    left_eye, right_eye, _, left_mouth, right_mouth = np.asarray(landmarks, np.float64)
    eyes = (left_eye + right_eye) * 0.5 + 0.5
    to_mouth = (left_mouth + right_mouth) * 0.5 + 0.5 - eyes
    eye_to_eye = right_eye - left_eye
    x = eye_to_eye - _rotated(to_mouth)
    x /= np.hypot(*x)
    x *= max(np.hypot(*eye_to_eye) * 2.0, np.hypot(*to_mouth) * 1.8)
    y = _rotated(x)
    centre = eyes + to_mouth * 0.1
    return np.stack([centre - x - y, centre - x + y, centre + x + y, centre + x - y])


def crop_face(image: Image.Image, landmarks: np.ndarray, size: int = 1024) -> Image.Image:
    """Cut the square around a face out of a photo, as `size` x `size` pixels.

    Where the square leaves the photo, the photo is continued by reflection, which blurs and fades
    to the median colour with the distance.

    Args:
        image: RGB.
        landmarks: [5, 2], see `face_corners`.
        size: width and height of the result; CelebA-HQ has 1024.
    """
    corners = face_corners(landmarks)
    scale = size / np.hypot(*(corners[3] - corners[0]))  # output pixels per pixel of the photo

    shrink = int(np.floor(0.5 / scale))
    if shrink > 1:
        shrunk = tuple(int(np.round(side / shrink)) for side in image.size)
        image = image.resize(shrunk, Image.Resampling.LANCZOS)
        corners, scale = corners / shrink, scale * shrink

    border = max(int(np.round(size * 0.1 / scale)), 3)
    left, top, right, bottom = _bounds(corners)
    box = (
        max(left - border, 0),
        max(top - border, 0),
        min(right + border, image.width),
        min(bottom + border, image.height),
    )
    if box[2] - box[0] < image.width or box[3] - box[1] < image.height:
        image = image.crop(box)
        corners = corners - box[:2]

    enlarge = int(np.exp2(np.ceil(np.log2(scale))))
    if enlarge > 1:
        enlarged = (image.width * enlarge, image.height * enlarge)
        image = image.resize(enlarged, Image.Resampling.LANCZOS)
        corners, scale = corners * enlarge, scale / enlarge

    left, top, right, bottom = _bounds(corners)
    outside = np.array([-left, -top, right - image.width, bottom - image.height])
    padding = np.maximum(outside + border, 0)  # left, top, right, bottom
    if padding.max() > border - 4:
        padding = np.maximum(padding, int(np.round(size * 0.3 / scale)))
        image = _continue(image, padding, blur=size * 0.02 / scale)
        corners = corners + padding[:2]

    data = (corners + 0.5).flatten()
    samples = (4 * size, 4 * size)  # each pixel is an average of several
    image = image.transform(samples, Image.Transform.QUAD, data, Image.Resampling.BILINEAR)
    return image.resize((size, size), Image.Resampling.LANCZOS)


def _continue(image: Image.Image, padding: np.ndarray, blur: float) -> Image.Image:
    """Add a margin (left, top, right, bottom) of the blurred and faded reflection."""
    left, top, right, bottom = padding
    pixels = np.pad(np.float32(image), ((top, bottom), (left, right), (0, 0)), "reflect")
    height, width, _ = pixels.shape
    y, x = np.float32(np.mgrid[:height, :width])[..., None]
    inside = np.minimum(
        np.minimum(x / left, y / top),
        np.minimum((width - 1 - x) / right, (height - 1 - y) / bottom),
    )
    depth = 1 - inside  # in the margin: 0 at the photo's edge, 1 at the outer edge
    blurred = scipy.ndimage.gaussian_filter(pixels, [blur, blur, 0])
    pixels += (blurred - pixels) * np.clip(3 * depth + 1, 0, 1)
    pixels += (np.median(pixels, axis=(0, 1)) - pixels) * np.clip(depth, 0, 1)
    return Image.fromarray(np.uint8(np.clip(np.round(pixels), 0, 255)))


def _bounds(corners: np.ndarray) -> tuple[int, int, int, int]:
    """The smallest whole pixel box (left, top, right, bottom) around the corners."""
    left, top = np.floor(corners.min(0)).astype(int)
    right, bottom = np.ceil(corners.max(0)).astype(int)
    return int(left), int(top), int(right), int(bottom)


def _rotated(v: np.ndarray) -> np.ndarray:
    """The vector turned by 90 degrees, from the x towards the y axis."""
    return np.array([-v[1], v[0]])
