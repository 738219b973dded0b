"""What is measured at a counterfactual.

With G the generator z -> image for a fixed x_T, f the regressor, J = dG/dz, z_0 the code of the
input and z that of the counterfactual, Delta z = z - z_0. The pulled-back metric is J^T J: the
length of a change of z is that of the change of the image.

All of it is restricted to the span of the leading singular vectors of J: those with a singular
value of at least `CUT` times the largest. Smaller ones would let a gradient ask for changes of z so
large that nothing linear describes them.
"""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import numpy as np

from .jacobian import Spectrum

Array = jax.Array

CUT = 0.01
PATH = (0.0, 0.25, 0.5, 0.75, 1.0)  # shares of Delta z at which the path is looked at


def tangent_shares(spectrum: Spectrum, gradient: np.ndarray) -> np.ndarray:
    """|P_k g| / |g| for k = 1, 2, ...: the part of an image's change that J can make.

    P_k projects on the first k left singular vectors. A random change of n values has about
    sqrt(k / n). For a gradient of f its inverse says how much farther an edit goes that stays among
    the generator's images than one of free pixels, both to first order.

    Args:
        spectrum: of J.
        gradient: of any shape with n values; not 0.

    Returns:
        [k], ascending.
    """
    flat = np.asarray(gradient, np.float64).ravel()
    return np.sqrt(np.cumsum(np.square(spectrum.left @ flat))) / np.linalg.norm(flat)


@dataclasses.dataclass(frozen=True)
class Nearest:
    """How far a change of z is from the direction in which f changes soonest.

    A nearest point of a level set of f is reached along the metric's gradient there: g in the plain
    metric, (J^T J)^-1 g in the pulled-back one. Angles are in degrees, 0 for a nearest point.

    Attributes:
        plain: between Delta z and g, as vectors of z.
        pulled_back: between Delta z and (J^T J)^-1 g, in the pulled-back metric; that is between
            J Delta z and P grad f, as changes of the image.
        of_gradient: between g and (J^T J)^-1 g in the pulled-back metric: 0 where both metrics
            agree on the direction.
    """

    plain: float
    pulled_back: float
    of_gradient: float


def nearest(spectrum: Spectrum, change: np.ndarray, gradient: np.ndarray, rise: float) -> Nearest:
    """Measure the three angles at a point.

    Args:
        spectrum: of J there.
        change: Delta z [D].
        gradient: of f in the image, n values.
        rise: by how much f has risen; its sign says in which direction of g to go.
    """
    pixels = spectrum.left @ np.asarray(gradient, np.float64).ravel()  # P grad f [k]
    g = spectrum.right.T @ (spectrum.values * pixels)  # [D], J^T grad f
    change = np.asarray(change, np.float64)

    def shown(vector: np.ndarray) -> np.ndarray:  # J v [k]
        return spectrum.values * (spectrum.right @ vector)

    sign = 1.0 if rise >= 0 else -1.0
    return Nearest(
        _angle(sign * change, g), _angle(sign * shown(change), pixels), _angle(shown(g), pixels)
    )


def _angle(a: np.ndarray, b: np.ndarray) -> float:
    cosine = float(a @ b) / float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))


@dataclasses.dataclass(frozen=True)
class Lengths:
    """How far the image has come, as root mean squares over all values in [0, 1].

    Attributes:
        straight: |G(z) - G(z_0)|.
        path: the length of G along the straight way from z_0 to z, by chords.
        shortest: |f(G(z)) - f(G(z_0))| / |P grad f| at z_0, the shortest change of the image among
            the generator's that moves f as far, to first order: |y - y_0| / |g| in the metric
            (J^T J)^-1.
        pixels: |f(G(z)) - f(G(z_0))| / |grad f|, the same for free pixels.
    """

    straight: float
    path: float
    shortest: float
    pixels: float


def lengths(
    images: Sequence[np.ndarray], spectrum: Spectrum, gradient: np.ndarray, rise: float
) -> Lengths:
    """Measure the lengths of a path.

    Args:
        images: G along the way, the first of z_0, the last of z.
        spectrum: of J at z_0.
        gradient: of f in the image of z_0.
        rise: f(G(z)) - f(G(z_0)).
    """
    flat = np.stack([np.asarray(image, np.float64).ravel() for image in images])
    per_value = np.sqrt(flat.shape[1])
    size = np.linalg.norm(np.asarray(gradient, np.float64))
    share = tangent_shares(spectrum, gradient)[-1]
    return Lengths(
        straight=float(np.linalg.norm(flat[-1] - flat[0]) / per_value),
        path=float(np.linalg.norm(np.diff(flat, axis=0), axis=1).sum() / per_value),
        shortest=float(abs(rise) / (share * size) / per_value),
        pixels=float(abs(rise) / size / per_value),
    )


@dataclasses.dataclass(frozen=True)
class Cycle:
    """What encoding G's images again gives, at each point of `PATH`.

    Attributes:
        code: |E(G(z_s)) - z_s| / |Delta z|.
        image: |G(E(G(z_s))) - G(z_s)| / |G(z) - G(z_0)|.
        followed: the part of Delta z that E sees, <E(G(z)) - E(G(z_0)), Delta z> / |Delta z|^2: 1
            where E inverts G.
    """

    code: list[float]
    image: list[float]
    followed: float


def cycle(
    encode: Callable[[Array], Array], decode: Callable[[Array], Array], codes: Sequence[Array]
) -> Cycle:
    """Encode and decode the images along a path of codes once more.

    Args:
        encode: image -> z [D].
        decode: z -> image, with x_T held.
        codes: along the way, the first z_0, the last z.
    """
    images = [decode(z) for z in codes]
    again = [encode(image) for image in images]
    shown = [decode(z) for z in again]
    codes, again, images, shown = (
        np.asarray(found, np.float64) for found in (codes, again, images, shown)
    )
    change = codes[-1] - codes[0]
    step, moved = np.linalg.norm(change), np.linalg.norm(images[-1] - images[0])
    return Cycle(
        code=[float(np.linalg.norm(b - a) / step) for a, b in zip(codes, again, strict=True)],
        image=[float(np.linalg.norm(b - a) / moved) for a, b in zip(images, shown, strict=True)],
        followed=float((again[-1] - again[0]) @ change / step**2),
    )
