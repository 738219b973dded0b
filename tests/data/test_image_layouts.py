"""Every layout of a TIFF or PNG, and colour profiles: the right values, or a refusal by name."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin

from diffcf_jax.data.image import load_image
from diffcf_jax.errors import UserError
from tests.data.pictures import pack, profile, write_png, write_tiff

SIZE = 16
RNG = np.random.default_rng(0)
GREY16 = RNG.integers(0, 65536, [SIZE, SIZE])
COLOR = RNG.integers(0, 256, [SIZE, SIZE, 3])
ORDERS = pytest.mark.parametrize("order", ["<", ">"])


def tiff(path, values, bits, photometric, order="<", planar=False, compress=False, **tags):
    """Write numbers [H, W] or [H, W, C] in samples of any number of bits."""

    def encode(values):
        if bits % 8 == 0:
            data = values.astype(f"{order}{'f' if bits == 32 else 'u'}{bits // 8}").tobytes()
        else:
            data = b"".join(pack(values.reshape(len(values), -1), bits))
        if tags.get("fill_order") == [2]:
            data = bytes(int(f"{byte:08b}"[::-1], 2) for byte in data)
        return zlib.compress(data) if compress else data

    values = np.asarray(values).reshape(SIZE, SIZE, -1)
    strips = [encode(plane) for plane in np.moveaxis(values, -1, 0)] if planar else encode(values)
    tags |= {"compression": [8]} if compress else {}
    samples = [bits] * values.shape[-1]
    write_tiff(path, strips, (SIZE, SIZE), samples, photometric, order, **tags)
    return path


def read(path):
    image = load_image(path, SIZE, convert=True)
    return image[..., 0] if (image == image[..., :1]).all() else image


def refused(path, *words):
    for convert in False, True:
        with pytest.raises(UserError) as error:
            load_image(path, SIZE, convert)
        sentence = str(error.value)
        assert str(path) in sentence and "\n" not in sentence and len(sentence) < 300
        for word in words:
            assert word in sentence, sentence


@ORDERS
@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("photometric", [0, 1])
@pytest.mark.parametrize("bits", [1, 2, 4, 8, 12, 16])
def test_grey_tiff(tmp_path, bits, photometric, compress, order):
    values = GREY16 >> (16 - bits)
    path = tiff(tmp_path / "a.tif", values, bits, photometric, order, compress=compress)
    # Pillow knows no big-endian or inverted 12 bits, and no values that are both at 16 bits.
    if (
        bits == 12
        and (order, photometric) != ("<", 1)
        or (bits, order, photometric) == (16, ">", 0)
    ):
        return refused(path, f"{bits}-bit values", "cannot be read")
    light = values if photometric == 1 else 2**bits - 1 - values
    np.testing.assert_array_equal(read(path), np.round(light * 255 / (2**bits - 1)))


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_tiff_with_the_lowest_bit_first(tmp_path, bits):
    values = GREY16 >> (16 - bits)
    path = tiff(tmp_path / "a.tif", values, bits, 1, fill_order=[2])
    np.testing.assert_array_equal(read(path), np.round(values * 255 / (2**bits - 1)))


@ORDERS
@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("bits", [8, 16])
def test_color_tiff(tmp_path, bits, compress, planar, order):
    values = COLOR if bits == 8 else COLOR * 256 + 77
    path = tiff(tmp_path / "a.tif", values, bits, 2, order, planar, compress)
    if planar and bits == 16 and not compress:  # Pillow takes each byte for a value
        return refused(path, "RGB in 16-bit values in separate planes")
    np.testing.assert_array_equal(read(path), COLOR)


@pytest.mark.parametrize("extra", [0, 1, 2])
def test_fourth_sample_of_a_tiff(tmp_path, extra):
    alpha = RNG.integers(64, 256, [SIZE, SIZE, 1])
    color = COLOR * alpha // 255 if extra == 1 else COLOR  # premultiplied
    values = np.concatenate([color, alpha], -1)
    path = tiff(tmp_path / "a.tif", values, 8, 2, extra=[extra])
    on_white = COLOR if extra == 0 else COLOR * (alpha / 255) + 255 - alpha
    assert np.abs(read(path) - on_white).max() <= (0 if extra == 0 else 3)


def test_other_colors_of_a_tiff(tmp_path):
    cmyk = np.concatenate([COLOR, np.zeros_like(COLOR[..., :1])], -1)
    for planar in False, True:
        path = tiff(tmp_path / "a.tif", cmyk, 8, 5, planar=planar)
        np.testing.assert_array_equal(read(path), 255 - COLOR)
    ycbcr = np.asarray(Image.fromarray(COLOR.astype(np.uint8)).convert("YCbCr"))
    assert np.abs(read(tiff(tmp_path / "b.tif", ycbcr, 8, 6)) - COLOR).max() <= 3
    lab = np.zeros((SIZE, SIZE, 3), np.uint8)
    lab[..., 0] = 137  # L* = 53.7: the grey of 128
    assert np.abs(read(tiff(tmp_path / "c.tif", lab, 8, 8)) - 128.0).max() <= 1


@pytest.mark.parametrize(
    "values, bits, photometric, tags, words",
    [
        (GREY16 >> 8, 8, 1, {"sample_format": [2]}, ["8-bit signed values", "range is unknown"]),
        (GREY16, 16, 1, {"sample_format": [2]}, ["16-bit signed values"]),
        (GREY16, 16, 1, {"sample_format": [3]}, ["grey in 16-bit floating-point values"]),
        (GREY16, 32, 1, {"sample_format": [3]}, ["grey in 32-bit floating-point values"]),
        (COLOR, 32, 2, {"sample_format": [3] * 3}, ["RGB in 32-bit floating-point values"]),
        (COLOR, 8, 2, {"sample_format": [2] * 3}, ["RGB in 8-bit signed values"]),
        (GREY16 >> 8, 8, None, {}, ["without a photometric interpretation"]),
        (COLOR, 8, 8, {"planar": True}, ["CIELAB in 8-bit values in separate planes"]),
        (COLOR, 8, 2, {"planar": True, "fill_order": [2]}, ["in separate planes"]),
        (COLOR, 8, 6, {"subsampling": [2, 2]}, ["subsampled YCbCr without compression"]),
        (COLOR, 8, 32845, {}, ["LogLuv in 8-bit values"]),
        (GREY16 >> 8, 8, 32803, {}, ["colour filter array"]),
        (GREY16 >> 8, 8, 4, {}, ["mask in 8-bit values"]),
    ],
)  # fmt: skip
def test_tiff_layouts_that_are_refused_by_name(tmp_path, values, bits, photometric, tags, words):
    refused(tiff(tmp_path / "a.tif", values, bits, photometric, **tags), *words, "8-bit RGB")


@pytest.mark.parametrize("orientation", [0, 1, 6, 9])
def test_orientation_of_a_tiff(tmp_path, orientation):
    path = tiff(tmp_path / "a.tif", COLOR, 8, 2, orientation=[orientation])
    expected = np.rot90(COLOR, -1) if orientation == 6 else COLOR
    np.testing.assert_array_equal(read(path), expected)
    if orientation != 6:
        load_image(path, SIZE)


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_grey_png_and_its_transparent_value(tmp_path, bits):
    values = GREY16 >> (16 - bits)
    write_png(tmp_path / "a.png", values, bits, 0)
    grey = np.round(values * 255 / (2**bits - 1))
    np.testing.assert_array_equal(read(tmp_path / "a.png"), grey)
    transparent = values[3, 3]
    write_png(tmp_path / "b.png", values, bits, 0, (b"tRNS", struct.pack(">H", transparent)))
    np.testing.assert_array_equal(
        read(tmp_path / "b.png"), np.where(values == transparent, 255, grey)
    )


@pytest.mark.parametrize("bits", [8, 16])
def test_png_with_alpha(tmp_path, bits):
    scale = 1 if bits == 8 else 256
    alpha = RNG.integers(0, 256, [SIZE, SIZE, 1])
    for color_type, color in (4, COLOR[..., :1]), (6, COLOR):
        values = np.concatenate([color, alpha], -1) * scale
        write_png(tmp_path / "a.png", values, bits, color_type)
        expected = np.broadcast_to(color * (alpha / 255) + 255 - alpha, COLOR.shape)
        found = load_image(tmp_path / "a.png", SIZE, convert=True)
        assert np.abs(found - expected).max() <= 1


def test_16_bit_color_with_a_transparent_color(tmp_path):
    write_png(tmp_path / "a.png", COLOR * 256, 16, 2, (b"tRNS", struct.pack(">3H", 1, 2, 3)))
    refused(tmp_path / "a.png", "16-bit RGB with a transparent colour")


def test_long_texts_of_a_png(tmp_path, monkeypatch):
    info = PngImagePlugin.PngInfo()
    info.add_text("notes", "x" * 3_000_000, zip=True)
    image = Image.fromarray(COLOR.astype(np.uint8))
    image.save(tmp_path / "a.png", pnginfo=info)
    np.testing.assert_array_equal(load_image(tmp_path / "a.png", SIZE), COLOR)
    for limit in "MAX_TEXT_CHUNK", "MAX_TEXT_MEMORY":
        monkeypatch.setattr(PngImagePlugin, limit, 1_000_000)
        refused(tmp_path / "a.png", "more than 64 MB of text")
        monkeypatch.undo()


# Colour profiles.


def from_adobe(color):
    """Convert Adobe RGB (1998) to sRGB by their definitions: gamma, primaries, curve."""
    linear = (np.asarray(color) / 255) ** (563 / 256)
    matrix = [[1.39836, -0.39836, 0.0], [0.0, 1.0, 0.0], [0.0, -0.04293, 1.04293]]
    linear = np.clip(linear @ np.transpose(matrix), 0, 1)
    curve = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return curve * 255


def strictly_refused_and_converted(path, image, icc_profile):
    image.save(path, icc_profile=icc_profile)
    with pytest.raises(UserError, match="another colour profile than sRGB.*convert=true"):
        load_image(path, SIZE)
    return load_image(path, SIZE, convert=True)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_adobe_rgb_is_converted(tmp_path, suffix):
    colors = np.array([[60, 200, 60], [255, 255, 255], [0, 0, 0], [128, 128, 128], [255, 128, 0]])
    pixels = np.resize(colors, (SIZE, SIZE, 3)).astype(np.uint8)
    path, image = tmp_path / f"a.{suffix}", Image.fromarray(pixels)
    found = strictly_refused_and_converted(path, image, profile())
    assert np.abs(found - from_adobe(pixels)).max() <= 1.5
    assert (found[0, 0] == [0, 201, 37]).all()


def test_other_kinds_of_images_with_profiles(tmp_path):
    path, grey = tmp_path / "a.png", np.full((SIZE, SIZE), 100, np.uint8)
    linear = profile(b"GRAY", gamma=1.0)
    light = 255 * (1.055 * (100 / 255) ** (1 / 2.4) - 0.055)  # 168
    found = strictly_refused_and_converted(path, Image.fromarray(grey), linear)
    assert np.abs(found - light).max() <= 1
    found = strictly_refused_and_converted(path, Image.fromarray(grey), profile(gamma=1.0))
    assert np.abs(found - light).max() <= 1
    found = strictly_refused_and_converted(path, Image.fromarray(grey.astype("u2") * 257), linear)
    assert np.abs(found - light).max() <= 1
    # Transparency is laid on white after the colours are converted, palettes are colours.
    green = Image.new("RGBA", (SIZE, SIZE), (60, 200, 60, 255))
    green.putpixel((0, 0), (60, 200, 60, 0))
    found = strictly_refused_and_converted(path, green, profile())
    assert (found[0, 0] == 255).all() and (found[0, 1] == [0, 201, 37]).all()
    palette = green.convert("RGB").quantize(2)
    assert (strictly_refused_and_converted(path, palette, profile())[1, 1] == [0, 201, 37]).all()


def test_profiles_that_change_nothing(tmp_path):
    path, image = tmp_path / "a.png", Image.fromarray(COLOR.astype(np.uint8))
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    cmyk = Image.fromarray(np.zeros((SIZE, SIZE, 4), np.uint8), "CMYK")
    for icc_profile in srgb, b"broken", profile()[:200], profile(b"GRAY"):
        image.save(path, icc_profile=icc_profile)
        np.testing.assert_array_equal(load_image(path, SIZE), COLOR)
    buffer = io.BytesIO()
    cmyk.save(buffer, "TIFF", icc_profile=profile())  # of another kind of image
    (tmp_path / "a.tif").write_bytes(buffer.getvalue())
    assert (read(tmp_path / "a.tif") == 255).all()
