"""Metrics of squares with known answers."""

from pathlib import Path

import numpy as np
import pytest

from diffcf_jax.data.squares import inner_mask
from eval.metrics.squares import square_metrics

GOLDEN = Path(__file__).parents[2] / "golden" / "squares" / "io.npz"


def painted(mask, inside, outside):
    """An image with the colour `inside` where the mask is, `outside` elsewhere; uint8."""
    return np.where(mask[..., None], np.uint8(inside), np.uint8(outside))


def test_square_metrics_of_images_with_known_answers():
    mask = inner_mask(10, 20)
    before = painted(mask, [50, 0, 0], [100, 100, 100]) / 255
    after = painted(mask, [170, 9, 9], [110, 100, 100]) / 255
    after[0, 0] += 0.3  # one pixel of 4096 - 64
    after[0, 1] -= 0.3  # and one that balances it in the mean
    values = square_metrics(before, after, mask, target=178 / 255)
    assert values["square_mae"] == pytest.approx(8 / 255)
    assert values["background_mae"] == pytest.approx(10 / 255 / 3)
    # Where 10 of red and +-0.3 meet: 2 pixels with 0.3 in all channels, red once more, once less.
    assert values["background_mae_per_pixel"] == pytest.approx(
        (4030 * 10 / 255 + (0.3 + 10 / 255) + (0.3 - 10 / 255) + 4 * 0.3) / (4032 * 3)
    )
    unchanged = square_metrics(before, before, mask, target=50 / 255)
    assert unchanged == pytest.approx({**dict.fromkeys(values, 0.0), "position_kept": 1.0})
    # The border, 2 pixels wide, is 10/255 of red brighter, as the rest is; no noise but 2 pixels.
    assert values["border_mae"] == pytest.approx(10 / 255 / 3)
    assert 0 < values["noise_change"] < 0.01


@pytest.mark.parametrize(("step", "kept"), [((0, 0), 1), ((1, -1), 1), ((2, 0), 0), ((0, -9), 0)])
def test_a_square_is_found_where_it_is(step, kept):
    """On noise of the data's strength, also a black one on black."""
    noise = np.random.default_rng(0).normal(0, 20, (64, 64, 3))
    place = (30 + step[0], 40 + step[1])
    ring = np.zeros((64, 64), bool)
    ring[place[0] : place[0] + 12, place[1] : place[1] + 12] = True
    inner = inner_mask(*place)
    for color, background in (([0, 0, 0], 0), ([200, 0, 0], 255)):
        image = np.full((64, 64, 3), background, float)
        image[ring] = 127
        image[inner] = color
        image = np.clip(image + noise, 0, 255) / 255
        values = square_metrics(image, image, inner_mask(30, 40), target=0.5)
        assert values["position_kept"] == kept


def test_square_metrics_agree_with_the_original():
    golden = np.load(GOLDEN)
    image, mask = golden["images"][1] / 255, golden["color_mask"] > 0
    values = square_metrics(np.zeros_like(image), image, mask, target=0.0)
    assert values["square_mae"] == pytest.approx(golden["inner_square_color"], rel=1e-6)
    assert values["background_mae"] == pytest.approx(golden["background_color"], rel=1e-6)
