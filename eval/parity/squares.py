"""The squares: drawn images, targets, masks, colours and the data sets' first samples."""

import numpy as np

from diffcf_jax.data.squares import (
    IMAGE_SIZE,
    SIDE,
    Squares,
    background_color,
    inner_square_color,
    mirror_target,
    render_square,
)

from .golden import Golden


def check(golden: Golden) -> None:
    """Compares a folder of kind `squares`."""
    latents = golden.array("latents_color_a_color_b_x_y")
    latents = np.where(latents < 0, (IMAGE_SIZE - SIDE) // 2, latents)  # -1 is the centre
    noises = golden.array("noises")
    images = [render_square(*latent, noise) for latent, noise in zip(latents, noises, strict=True)]
    golden.compare("images", np.stack(images))

    for suffix in ("", "_random"):
        targets = mirror_target(golden.array(f"targets_y{suffix}"))
        golden.compare(f"targets_out{suffix}", targets.astype(np.float32))

    mask = golden.array("color_mask")[..., 0] > 0
    shown = images[1] / np.float32(255)
    golden.compare("inner_square_color", inner_square_color(shown, mask))
    golden.compare("background_color", background_color(shown, mask))

    config = golden.config
    train = Squares("train", limit=max(config["train_index"]) + 1)
    _compare_split(golden, "train", train, config["train_index"])
    inverse = _draw_inverse(train)[config["train_index"]]
    golden.compare("train_inverse_images", inverse)
    table = [line for line in config["train_csv"] if not line.startswith("Name")]
    _compare_table(golden, "train_csv", table, train, config["train_index"])
    # Its table has color_b - 255 for a background of 255 - color_b.
    table = config["train_inverse_csv"]
    _compare_table(golden, "train_inverse_csv", table, train, config["train_index"], offset=255)

    validation = Squares("validation")
    half = len(validation) // 2
    golden.compare_value("val_rows", half, config["val_rows"])
    for name, start in (("lower", 0), ("upper", half)):
        index = [start + i for i in config["val_index"]]
        golden.compare(f"val_{name}_images", validation.images[index])
        table = config[f"val_{name}_csv"]
        _compare_table(golden, f"val_{name}_csv", table, validation, index)
    golden.compare("val_masks", _like_original(validation.masks[index]))


def _compare_split(golden: Golden, name: str, squares: Squares, index: list[int]) -> None:
    golden.compare(f"{name}_images", squares.images[index])
    golden.compare(f"{name}_masks", _like_original(squares.masks[index]))


def _draw_inverse(train: Squares) -> np.ndarray:
    """The training images with the background 255 - color_b and the same noise."""
    random = np.random.RandomState(0)
    images = []
    for i, (inner, background, row, column) in enumerate(train.latents):
        for k, (middle, end) in enumerate([(128, 256), (128, 256), (26, 52), (26, 52)]):
            random.randint(*((middle, end) if (i >> k) % 2 == 0 else (0, middle)))
        noise = random.randn(IMAGE_SIZE, IMAGE_SIZE, 3) * 20
        images.append(render_square(inner, 255 - background, row, column, noise))
    return np.stack(images)


def _like_original(masks: np.ndarray) -> np.ndarray:
    """Masks as the original saves them: 255 inside, in three channels."""
    return np.repeat(masks[..., None].astype(np.uint8) * 255, 3, axis=-1)


def _compare_table(
    golden: Golden, name: str, lines: list[str], squares: Squares, index: list[int], offset: int = 0
) -> None:
    """Compares colours and place in the original's table, as fractions, with the latents."""
    values = np.array([[float(cell) for cell in line.split(",")[5:]] for line in lines])
    latents = squares.latents[index]
    scale = np.array([255, 255, IMAGE_SIZE, IMAGE_SIZE])
    expected = (latents - np.array([0, offset, 0, 0])) / scale
    golden.compare_value(name, expected, values)
