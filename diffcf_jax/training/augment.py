"""Random changes of a batch of images that leave what it shows, and its labels, as they are."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from diffcf_jax.training.config import Augmentation

Array = jax.Array

PATCH = 8  # pixels, of the random colours


def augment(images: Array, key: Array, options: Augmentation) -> Array:
    """Changes every image [B, H, W, C] of a batch at random, in the ways that are chosen."""
    key_flip, key_roll, key_color, key_tile = jax.random.split(key, 4)
    if options.flips:
        images = random_flips(images, key_flip)
    elif options.mirror:
        images = random_mirror(images, key_flip)
    if options.rolls:
        images = random_rolls(images, key_roll)
    if options.color_noise:
        images = random_colors(images, key_color, options.color_noise)
    if options.tile_noise:
        images = random_tiles(images, key_tile, options.tile_noise)
    return images


def random_mirror(images: Array, key: Array) -> Array:
    """Mirrors each image [B, H, W, C] left to right with probability 1/2."""
    chosen = jax.random.bernoulli(key, shape=(images.shape[0], 1, 1, 1))
    return jnp.where(chosen, images[:, :, ::-1], images)


def random_flips(images: Array, key: Array) -> Array:
    """Mirrors each image [B, H, W, C] in both directions, each with probability 1/2."""
    horizontal, vertical = jax.random.bernoulli(key, shape=(2, images.shape[0], 1, 1, 1))
    images = jnp.where(horizontal, images[:, :, ::-1], images)
    return jnp.where(vertical, images[:, ::-1], images)


def random_rolls(images: Array, key: Array) -> Array:
    """Shifts each image [B, H, W, C] cyclically by a uniformly drawn number of rows and columns."""
    b, h, w, _ = images.shape
    key_rows, key_columns = jax.random.split(key)
    rows = jax.random.randint(key_rows, (b,), 0, h)
    columns = jax.random.randint(key_columns, (b,), 0, w)
    return jax.vmap(lambda image, i, j: jnp.roll(image, (i, j), (0, 1)))(images, rows, columns)


def random_colors(images: Array, key: Array, std: Sequence[float]) -> Array:
    """Adds a random colour to each image, and another one to each of its 8x8 patches.

    `x + u std (patches + whole)`, both standard normal, with u uniform in [0, 1] for each image
    and channel; values may leave [0, 1]. A regressor whose label depends on red alone learns
    from noise in green and blue that they do not matter; otherwise it takes them for a sign of
    red, and pixel-space counterfactuals of it change them instead.

    Args:
        images: [B, H, W, C] in [0, 1]; H and W are multiples of 8.
        key: of the draws.
        std: the largest standard deviation of each channel; 0 leaves a channel as it is.
    """
    b, h, w, c = images.shape
    key_cells, key_roll, key_whole, key_share = jax.random.split(key, 4)
    cells = jax.random.normal(key_cells, (b, h // PATCH, w // PATCH, c))
    patches = random_rolls(jnp.repeat(jnp.repeat(cells, PATCH, 1), PATCH, 2), key_roll)
    whole = jax.random.normal(key_whole, (b, 1, 1, c))
    share = jax.random.uniform(key_share, (b, 1, 1, c))
    return images + share * jnp.asarray(std) * (patches + whole)


def random_tiles(images: Array, key: Array, std: float) -> Array:
    """Adds to each image a random 8x8 tile of mean zero, repeated over the whole of it.

    `x + u std tile`, with u uniform in [0, 1]. Whatever its place, an 8x8 square keeps its mean:
    a regressor that is to read this mean has to weigh all of the square's pixels alike and none
    around it. Values may leave [0, 1], because clipping would move the mean.

    Args:
        images: [B, H, W, C]; H and W are multiples of 8.
        key: of the draws.
        std: the largest standard deviation.
    """
    b, h, w, c = images.shape
    *key_scales, key_roll, key_share = jax.random.split(key, 5)
    tile = jnp.zeros((b, PATCH, PATCH, c))
    for cell, key_scale in zip((1, 2, 4), key_scales, strict=True):  # coarse patterns and fine
        cells = jax.random.normal(key_scale, (b, PATCH // cell, PATCH // cell, c))
        tile += jnp.repeat(jnp.repeat(cells, cell, 1), cell, 2) / jnp.sqrt(3.0)
    tile -= tile.mean((1, 2), keepdims=True)
    tiles = random_rolls(jnp.tile(tile, (1, h // PATCH, w // PATCH, 1)), key_roll)
    share = jax.random.uniform(key_share, (b, 1, 1, 1))
    return images + share * std * tiles
