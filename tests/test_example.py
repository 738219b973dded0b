"""docs/example.py, which writes AC-RE out, on the shipped checkpoints."""

import importlib.util
from pathlib import Path

import numpy as np
from PIL import Image

EXAMPLE = Path(__file__).parents[1] / "docs" / "example.py"


def test_the_square_turns_red_and_the_rest_stays(tmp_path, capsys):
    spec = importlib.util.spec_from_file_location("example", EXAMPLE)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    before, after = example.main(tmp_path / "picture.png", target=0.75)
    assert abs(before - 60 / 255) < 0.05
    assert abs(after - 0.75) <= 0.05
    assert f"{before:.2f} -> {after:.2f} for the target 0.75" in capsys.readouterr().out

    with Image.open(tmp_path / "picture.png") as picture:
        assert picture.size == (4 * 3 * 64, 4 * 64)
        pixels = np.asarray(picture)[::4, ::4] / 255
    x, image, change = np.split(pixels, 3, axis=1)
    np.testing.assert_allclose(change, np.abs(image - x), atol=0.01)
    inside = change[22:30, 38:46].mean((0, 1))
    assert inside[0] > 0.4 and inside[0] > 2 * inside[1:].max()
    assert (change.max(-1) == 0).mean() > 0.8
