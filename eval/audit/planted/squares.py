"""Squares with a planted background.

The planted regressor has learned to read the background of the squares (train/squares_planted);
the clean one is squares_regressor.
"""

import functools
from pathlib import Path

import numpy as np

from diffcf_jax.data.squares import IMAGE_SIZE, SIDE, Squares
from diffcf_jax.files import encode_png, write_file

from .task import Planted, write_attributes, write_table

FEATURE = "background"
SHOWN = ("red", FEATURE, "row", "column")  # by the latents of the squares


def prepare(workdir: Path, images: int, random: int) -> Planted:
    """Write squares, drawn at random from the validation set, and the table of what they show.

    Args:
        workdir: gets `images/` and `attributes.csv`.
        images: how many.
        random: columns of random numbers.
    """
    from diffcf_jax.configs import squares_diffae

    squares = Squares("validation")
    count = min(images, len(squares))
    chosen = np.sort(np.random.default_rng(0).choice(len(squares), count, replace=False))
    names, latents = [squares.names[i] for i in chosen], squares.latents[chosen]
    for i, name in zip(chosen, names, strict=True):
        write_file(workdir / "images" / name, encode_png(squares.images[i]))
    targets = [(squares.names[i], squares.target(int(i))) for i in chosen]
    write_table(workdir / "images" / "data.csv", ["name", "target"], targets)
    write_attributes(
        workdir / "attributes.csv", names, dict(zip(SHOWN, latents.T, strict=True)), random
    )
    around = np.stack([outside_square(*corner) for corner in latents[:, 2:]])

    configs = {}
    for name, regressor in (("planted", "squares_planted"), ("clean", "squares_regressor")):
        config = squares_diffae.get_config()
        config.regressor.checkpoint = regressor
        config.data.path = str(workdir / "images")
        configs[name] = config.to_dict()
    repaint = functools.partial(brighten, around)
    return Planted(FEATURE, workdir / "attributes.csv", configs, around, repaint)


def brighten(
    around: np.ndarray, edit: np.ndarray, base: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """By how much an edit brightens the background [N], and images brightened by that there alone.

    Args:
        around: the background, bool [N, H, W].
        edit: images [N, H, W, 3] in [0, 1].
        base: what they were before.
    """
    moved = (edit - base).mean(-1).mean((1, 2), where=around)
    brighter = base + np.where(around, moved[:, None, None], 0)[..., None]
    return moved, np.clip(brighter, 0, 1).astype(np.float32)


def outside_square(row: int, column: int) -> np.ndarray:
    """The background of a square with that corner of its border, bool [64, 64]."""
    mask = np.ones((IMAGE_SIZE, IMAGE_SIZE), bool)
    mask[row : row + SIDE, column : column + SIDE] = False
    return mask
