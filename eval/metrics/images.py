"""How far a counterfactual is from its original, pixel by pixel."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .batch import Measure, in_batches

# A channel counts as changed from here on. In 8 bits, differences of up to 7 hide in noise.
CHANGED = 8 / 255
WINDOW = 11  # of the structural similarity, in pixels


def distances() -> Measure:
    """`proximity` of each result."""
    measure = in_batches(lambda _, x, y: proximity(x, y), {})
    return lambda batch, _: measure(batch.inputs, batch.images)


def proximity(
    x: Float[Array, "b h w 3"], y: Float[Array, "b h w 3"]
) -> dict[str, Float[Array, " b"]]:
    """Distances between images x and y in [0, 1], one per pair.

    With d = y - x over all pixels and channels:

        l1   = mean |d|               l2 = sqrt(mean d^2)          linf = max |d|
        changed_area = share of pixels with max over channels |d| >= 8/255
        psnr = -20 log10(l2) in dB, infinite where nothing changed
        ssim = mean structural similarity; NaN for images of less than 6 pixels.
    """
    d = y - x
    l2 = jnp.sqrt(jnp.mean(d**2, axis=(1, 2, 3)))
    # 8-bit values differ by whole steps; the tolerance keeps a step of exactly 8 in.
    changed = jnp.max(jnp.abs(d), axis=-1) >= CHANGED - 1e-6
    fits = min(x.shape[1:3]) > WINDOW // 2
    return {
        "l1": jnp.mean(jnp.abs(d), axis=(1, 2, 3)),
        "l2": l2,
        "linf": jnp.max(jnp.abs(d), axis=(1, 2, 3)),
        "changed_area": jnp.mean(changed, axis=(1, 2)),
        "psnr": -20 * jnp.log10(l2),
        "ssim": structural_similarity(x, y) if fits else jnp.full_like(l2, jnp.nan),
    }


def structural_similarity(
    x: Float[Array, "b h w c"], y: Float[Array, "b h w c"], sigma: float = 1.5
) -> Float[Array, " b"]:
    """Mean structural similarity (SSIM) of images in [0, 1].

        (2 m_x m_y + c1) (2 s_xy + c2) / ((m_x^2 + m_y^2 + c1) (s_x^2 + s_y^2 + c2)),
        c1 = 0.01^2, c2 = 0.03^2

    with means m, variances s^2 and covariance s_xy in a Gaussian window of 11 pixels, per channel;
    the image is mirrored at its border.

    Args:
        x: images of at least 6 pixels in height and width.
        y: images of the same size.
        sigma: standard deviation of the window, in pixels.

    Reference: Wang et al., Image quality assessment, IEEE TIP 13, 2004.
    """
    x, y = (jnp.moveaxis(images, 3, 1) for images in (x, y))
    rows, columns = (_gaussian(size, sigma) for size in x.shape[2:])

    def blur(a: Array) -> Array:
        across = jnp.matmul(a, columns.T, precision="highest")
        return jnp.matmul(rows, across, precision="highest")

    mean_x, mean_y = blur(x), blur(y)
    var_x, var_y = (jnp.maximum(blur(a * a) - mean**2, 0) for a, mean in ((x, mean_x), (y, mean_y)))
    cov = blur(x * y) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    similarity = (2 * mean_x * mean_y + c1) * (2 * cov + c2)
    similarity /= (mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)
    return jnp.mean(similarity, axis=(1, 2, 3))


def _gaussian(size: int, sigma: float) -> np.ndarray:
    """The matrix [size, size] that blurs `size` values in a row, which are mirrored at the ends."""
    offsets = np.arange(WINDOW) - WINDOW // 2
    window = np.exp(-(offsets**2) / (2 * sigma**2))
    matrix = np.zeros((size, size))
    for offset, weight in zip(offsets, window / window.sum(), strict=True):
        source = np.abs(np.arange(size) + offset)
        source = np.minimum(source, 2 * (size - 1) - source)
        np.add.at(matrix, (np.arange(size), source), weight)
    return matrix.astype(np.float32)
