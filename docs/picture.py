"""Draws images/squares.png, the first picture of the README: python docs/picture.py (two minutes).

Five validation squares on their way to their "mirror" targets, with the shipped networks and the
options of configs/squares_acre.py and squares_diffae.py.
"""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from diffcf_jax import ACRE, DiffAERE, Explainer, load_network
from diffcf_jax.data.squares import Squares
from diffcf_jax.files import to_uint8
from diffcf_jax.report.figures import heatmap

SQUARES = (16, 155, 262, 336, 570)
TILE, GAP, LEFT, TOP = 128, 8, 112, 28


def main() -> None:
    """Explain the squares with both methods and write the picture."""
    squares = Squares("validation")
    images = squares.images[list(SQUARES)]
    targets = [squares.target(i) for i in SQUARES]
    regressor = load_network("checkpoints/squares_regressor")
    rows = [("input", images)]
    for name, generator, method in (
        ("AC-RE", "squares_ddpm", ACRE(iterations=40)),
        ("Diff-AE-RE", "squares_diffae", DiffAERE()),
    ):
        explainer = Explainer(load_network(f"checkpoints/{generator}"), regressor, method)
        explanation = explainer.explain(images / 255, targets)
        found = np.stack([to_uint8(image, name) for image in explanation.image])
        changes = np.clip(4.0 * (found.astype(int) - images), -255, 255)
        changes = np.stack([heatmap(np.zeros_like(change), change) for change in changes])
        rows += [(name, found), ("change x 4", changes)]
    titles = [f"{y:.2f} to {t:.2f}" for y, t in zip(explanation.y_initial, targets, strict=True)]
    path = Path(__file__).parent / "images" / "squares.png"
    draw(rows, titles).save(path, optimize=True)
    print(path)


def draw(rows: list[tuple[str, np.ndarray]], titles: list[str]) -> Image.Image:
    """Lay out rows of uint8 images [B, H, W, 3] with a name each, and a title per column."""
    size = LEFT + len(titles) * (TILE + GAP), TOP + len(rows) * (TILE + GAP)
    page, font = Image.new("RGB", size, "white"), ImageFont.load_default(15)
    text = ImageDraw.Draw(page)
    for column, title in enumerate(titles):
        middle = LEFT + column * (TILE + GAP) + TILE / 2
        text.text((middle, TOP / 2), title, "black", font, anchor="mm")
    for row, (name, images) in enumerate(rows):
        top = TOP + row * (TILE + GAP)
        text.text((LEFT - 12, top + TILE / 2), name, "black", font, anchor="rm")
        for column, image in enumerate(images):
            tile = Image.fromarray(image).resize((TILE, TILE), Image.Resampling.NEAREST)
            page.paste(tile, (LEFT + column * (TILE + GAP), top))
    return page


if __name__ == "__main__":
    main()
