"""Random changes of a batch of images that leave what it shows, and its labels, as they are.

`random_geometry` is the exception: it shows things upside down, turned and stretched. A generator
that is told of it does not make such images.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from diffcf_jax.training.config import Augmentation

Array = jax.Array

PATCH = 8  # pixels, of the random colours
GEOMETRY = 9  # numbers that describe what `random_geometry` did


def augment(images: Array, key: Array, options: Augmentation) -> tuple[Array, Array | None]:
    """Changes every image of a batch at random, in the ways that are chosen.

    Args:
        images: [B, H, W, C] in [0, 1].
        key: of the draws.
        options: the ways.

    Returns:
        The images, and what `random_geometry` says it did, [B, 9]; None where it was not chosen.
    """
    key_flip, key_roll, key_color, key_tile = jax.random.split(key, 4)
    geometry = None
    if options.flips:
        images = random_flips(images, key_flip)
    elif options.mirror:
        images = random_mirror(images, key_flip)
    if options.geometric:
        key_geometry = jax.random.fold_in(key, 4)
        images, geometry = random_geometry(images, key_geometry, options.geometric)
    if options.rolls:
        images = random_rolls(images, key_roll)
    if options.color_noise:
        images = random_colors(images, key_color, options.color_noise)
    if options.tile_noise:
        images = random_tiles(images, key_tile, options.tile_noise)
    return images, geometry


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


def random_geometry(images: Array, key: Array, probability: float) -> tuple[Array, Array]:
    """Flips, enlarges, turns, stretches and shifts images, and says by how much.

    `x(c + M^-1 (p - c - t))` at pixels p, with the centre c, `M = 2^s R(a) S F` and

        F: mirrored left to right and upside down, each in half of the cases,
        s: normal with standard deviation 0.2,
        R: turned by an angle a, uniform in all directions,
        S: stretched by 2^u along an axis and by 2^-u across it, u as s, the axis uniform,
        t: normal with standard deviation 1/8 of the side.

    Each of the six happens to an image with the given probability, and images that nothing
    happened to stay as they are. What lies outside is the image's reflection at its edges. Pixels
    are interpolated bilinearly in an image that Lanczos' filter has enlarged twice, so that little
    sharpness is lost.

    Source: Karras et al. (2022), "Elucidating the design space of diffusion-based generative
    models", appendix F.2, where the probability is 0.12. There, as here for a DDPM, the numbers
    that describe the change enter the network beside the timestep. Without a change they are 0,
    which is what an image is made with.

    Args:
        images: [B, H, W, C] in [0, 1], square.
        key: of the draws.
        probability: of each of the six.

    Returns:
        The images, and what was done: the two flips, s / 0.2, cos a - 1, sin a, u / 0.2 as a vector
        along twice the axis' angle, and 8 t / side, [B, 9].
    """
    b, size = images.shape[:2]
    keys = jax.random.split(key, 4)
    on = jax.random.bernoulli(keys[0], probability, (6, b))
    flips = on[:2] & jax.random.bernoulli(keys[1], shape=(2, b))  # [2, B]
    normal = jax.random.normal(keys[2], (4, b))
    scale, stretch = normal[:2] * on[2:4]  # in units of 0.2 octaves
    shift = normal[2:] * on[4]  # [2, B], in eighths of a side
    angle, axis = jax.random.uniform(keys[3], (2, b), minval=-jnp.pi, maxval=jnp.pi)
    angle *= on[5]
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    along, across = stretch * jnp.cos(axis), stretch * jnp.sin(axis)
    described = [*flips, scale, cos - 1, sin, along, across, *shift]

    # M^-1 = F S^-1 R^-1 / 2^s, rows of (x, y); S is symmetric, its axis half of the angle `axis`.
    octaves = 0.2 * jnp.log(2.0)
    cosh, sinh = jnp.cosh(octaves * stretch), jnp.sinh(octaves * stretch)
    unstretch = [[cosh - sinh * jnp.cos(axis), -sinh * jnp.sin(axis)]]
    unstretch += [[-sinh * jnp.sin(axis), cosh + sinh * jnp.cos(axis)]]
    inverse = jnp.einsum(
        "ib,ijb,jkb,b->bik",
        1 - 2.0 * flips,
        jnp.array(unstretch),
        jnp.array([[cos, sin], [-sin, cos]]),
        jnp.exp(-octaves * scale),
    )
    pixels = jnp.arange(size) - (size - 1) / 2  # from the centre
    target = jnp.stack(jnp.meshgrid(pixels, pixels, indexing="xy"))  # [2, H, W]: x, y
    target = target[None] - (shift.T * size / 8)[:, :, None, None]
    source = jnp.einsum("bik,bkhw->bihw", inverse, target)

    large = jax.image.resize(images, (b, 2 * size, 2 * size, images.shape[3]), "lanczos3")
    x, y = jnp.moveaxis(2 * source + size - 0.5, 1, 0)  # in pixels of the enlarged images

    def look_up(channel: Array, y: Array, x: Array) -> Array:
        return jax.scipy.ndimage.map_coordinates(channel, [y, x], order=1, mode="reflect")

    of_channels = jax.vmap(look_up, (2, None, None), 2)
    changed = jnp.clip(jax.vmap(of_channels)(large, y, x), 0, 1)
    happened = on[2:].any(0) | flips.any(0)
    images = jnp.where(happened[:, None, None, None], changed, images)
    return images, jnp.stack(described, 1)


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
