"""One image of a user: what is taken as it is, what is converted, what is refused and how."""

import io
import math
import pathlib
import tempfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from diffcf_jax.data.folder import SUFFIXES
from diffcf_jax.data.image import load_image
from diffcf_jax.errors import UserError
from tests.data.pictures import write_png

SIZE = 16
RNG = np.random.default_rng(0)


def noise_image(mode="RGB", size=(SIZE, SIZE)):
    image = Image.fromarray(RNG.integers(0, 256, [size[1], size[0], 3], dtype=np.uint8))
    if mode == "I;16":
        return Image.fromarray(RNG.integers(0, 65536, size[::-1], dtype=np.uint16))
    return image.convert(mode)


def refused(path, *words, convert=False):
    """Reading must raise one sentence that names the file and holds the words."""
    with pytest.raises(UserError) as error:
        load_image(path, SIZE, convert)
    sentence = str(error.value)
    assert str(path) in sentence and "\n" not in sentence
    for word in words:
        assert word in sentence, sentence


def strict_refuses(path, *words):
    refused(path, *words, "--config.data.convert=true")
    image = load_image(path, SIZE, convert=True)
    assert image.shape == (SIZE, SIZE, 3) and image.dtype == np.uint8
    return image


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".webp"])
def test_8_bit_rgb_is_taken_as_it_is(tmp_path, suffix):
    image, path = noise_image(), tmp_path / f"a{suffix}"
    image.save(path, lossless=True)
    for convert in False, True:
        np.testing.assert_array_equal(load_image(path, SIZE, convert), np.asarray(image))
    assert load_image(str(path), SIZE).flags.writeable


def test_jpeg(tmp_path):
    noise_image().save(tmp_path / "a.jpg")
    with Image.open(tmp_path / "a.jpg") as image:
        np.testing.assert_array_equal(load_image(tmp_path / "a.jpg", SIZE), np.asarray(image))


def test_grey(tmp_path):
    image, path = noise_image("L"), tmp_path / "a.png"
    image.save(path)
    converted = strict_refuses(path, "grey")
    np.testing.assert_array_equal(converted, np.repeat(np.asarray(image)[..., None], 3, axis=2))


def test_palette(tmp_path):
    image, path = noise_image("P"), tmp_path / "a.png"
    image.save(path)
    converted = strict_refuses(path, "palette")
    np.testing.assert_array_equal(converted, np.asarray(image.convert("RGB")))


def test_alpha_is_laid_on_white(tmp_path):
    rgba, path = np.asarray(noise_image("RGBA")).copy(), tmp_path / "a.png"
    rgba[..., 3] = RNG.integers(0, 256, [SIZE, SIZE])
    rgba[0, :, 3], rgba[1, :, 3] = 0, 255
    Image.fromarray(rgba).save(path)
    converted = strict_refuses(path, "transparency")
    color, alpha = rgba[..., :3].astype(float), rgba[..., 3:] / 255
    assert np.abs(converted - (alpha * color + (1 - alpha) * 255)).max() <= 1
    assert (converted[0] == 255).all()
    np.testing.assert_array_equal(converted[1], rgba[1, :, :3])


def test_transparent_color(tmp_path):
    rgb, path = np.asarray(noise_image()).copy(), tmp_path / "a.png"
    rgb[2, 3] = 1, 2, 3
    Image.fromarray(rgb).save(path, transparency=(1, 2, 3))
    assert (strict_refuses(path, "transparency")[2, 3] == 255).all()


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bit_grey_is_scaled(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    values = np.linspace(0, 65535, SIZE * SIZE).astype(np.uint16).reshape(SIZE, SIZE)
    Image.fromarray(values).save(path)
    converted = strict_refuses(path, "16-bit", "grey")
    np.testing.assert_array_equal(converted[..., 0], np.round(values / 257))
    np.testing.assert_array_equal(converted[..., 0], converted[..., 2])


def test_16_bit_color(tmp_path):
    values = RNG.integers(0, 65536, [SIZE, SIZE, 3])
    path = tmp_path / "a.png"
    write_png(path, values, 16, 2)
    np.testing.assert_array_equal(strict_refuses(path, "16-bit"), values >> 8)


@pytest.mark.parametrize("mode", ["I", "F"])
def test_values_of_unknown_range(tmp_path, mode):
    path = tmp_path / "a.tif"
    noise_image("L").convert(mode).save(path)
    for convert in False, True:
        refused(path, "32-bit", convert=convert)


@pytest.mark.parametrize("suffix", [".gif", ".png", ".webp", ".tif"])
def test_first_frame(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    frames = [Image.new("RGB", (SIZE, SIZE), color) for color in ["red", "blue", "lime"]]
    frames[0].save(path, save_all=True, append_images=frames[1:], lossless=True)
    converted = strict_refuses(path, "animated")
    np.testing.assert_array_equal(converted, np.asarray(frames[0]))


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_exif_rotation(tmp_path, suffix):
    path, exif = tmp_path / f"a{suffix}", Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees clockwise
    image = np.zeros([SIZE, SIZE, 3], dtype=np.uint8)
    image[:, : SIZE // 2] = 255
    Image.fromarray(image).save(path, exif=exif, lossless=True)
    converted = strict_refuses(path, "EXIF")
    assert np.abs(converted - np.rot90(image, -1).astype(float)).max() < 10

    exif[0x0112] = 1
    Image.fromarray(image).save(path, exif=exif, lossless=True)
    load_image(path, SIZE)


def test_crop_and_resize(tmp_path):
    path = tmp_path / "a.png"
    image = np.asarray(noise_image(size=(3 * SIZE + 1, 2 * SIZE)))
    Image.fromarray(image).save(path)
    converted = strict_refuses(path, f"{3 * SIZE + 1}x{2 * SIZE} pixels", f"{SIZE}x{SIZE}")
    square = Image.fromarray(image[:, SIZE // 2 : SIZE // 2 + 2 * SIZE])
    expected = np.asarray(square.resize((SIZE, SIZE), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(converted, expected)


def test_every_oddity_is_named(tmp_path):
    noise_image("LA", (5, 7)).save(tmp_path / "a.png")
    strict_refuses(tmp_path / "a.png", "grey", "transparency", "5x7 pixels")
    noise_image("CMYK").save(tmp_path / "a.jpg")
    strict_refuses(tmp_path / "a.jpg", "CMYK")


def test_missing_and_unreadable(tmp_path):
    refused(tmp_path / "a.png", "does not exist")
    (tmp_path / "folder.png").mkdir()
    refused(tmp_path / "folder.png", "not a regular file")
    for data in b"", b"not an image", b"\x89PNG\r\n\x1a\n":
        (tmp_path / "b.png").write_bytes(data)
        refused(tmp_path / "b.png", "cannot be read")
        refused(tmp_path / "b.png", "cannot be read", convert=True)


@pytest.mark.parametrize("size", [SIZE, 64])
@pytest.mark.parametrize("suffix", [suffix for suffix in SUFFIXES if suffix != ".gif"])
def test_truncated(tmp_path, suffix, size):
    path = tmp_path / f"a{suffix}"
    noise_image(size=(size, size)).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 4])
    for convert in False, True:
        refused(path, "cannot be read", convert=convert)


def test_truncated_gif(tmp_path):
    path = tmp_path / "a.gif"
    noise_image().save(path)
    path.write_bytes(path.read_bytes()[:-100])
    refused(path, "cannot be read", convert=True)


@settings(max_examples=150, deadline=None)
@given(
    mode=st.sampled_from(["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "I", "F"]),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    kind=st.sampled_from(["png", "jpeg", "gif", "tiff", "webp", "bmp"]),
    image_size=st.integers(1, 24),
    convert=st.booleans(),
)
def test_any_mode_and_size(mode, size, kind, image_size, convert):
    image = noise_image("L" if mode in "IF" else mode, size)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / f"image.{kind}"
        try:
            (image.convert(mode) if mode in "IF" else image).save(path)
        except (OSError, ValueError, KeyError):
            return  # the format has no such mode
        with Image.open(path) as image:
            plain = image.mode == "RGB" and image.size == (image_size, image_size)
            ranged = image.mode not in "IF"
        if (convert and ranged) or plain:
            result = load_image(path, image_size, convert)
            assert result.shape == (image_size, image_size, 3) and result.dtype == np.uint8
        else:
            with pytest.raises(UserError, match="8-bit RGB"):
                load_image(path, image_size, convert)


ENCODED = {}
for kind in "png", "jpeg", "gif", "tiff", "webp", "bmp":
    buffer = io.BytesIO()
    noise_image().save(buffer, format=kind)
    ENCODED[kind] = buffer.getvalue()


@settings(max_examples=200, deadline=None)
@given(
    kind=st.sampled_from(sorted(ENCODED)),
    end=st.floats(0, 1),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=4),
    convert=st.booleans(),
)
@pytest.mark.filterwarnings("ignore")  # Pillow warns of some damage
def test_damaged_files_raise_only_user_errors(kind, end, changes, convert):
    data = bytearray(ENCODED[kind])
    for place, value in changes:
        data[int(place * len(data))] = value
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "image.png"
        path.write_bytes(data[: math.ceil(end * len(data))])
        try:
            assert load_image(path, SIZE, convert).shape == (SIZE, SIZE, 3)
        except UserError as error:
            assert str(path) in str(error) and "\n" not in str(error)
