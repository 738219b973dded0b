"""Directions of z_sem that may move a prediction, each estimated on both halves of the images.

Everything here is in standardised codes, s = (z - mean) / std by channel, so that no channel counts
more because it is larger; there, a direction u is a unit vector. It is estimated once on each half
of the images and used on the other half only. Its step is the standard deviation of s over all
images along u.
"""

import dataclasses
import warnings
import zlib
from collections.abc import Mapping, Sequence

import numpy as np

from .attributes import Attribute
from .probe import Probe, area_under_curve, fit_probe, r2

HALVES = (0, 1)
_PRINCIPAL = 2  # directions of the gradient beside its mean
_SHARED = 0.01  # of the variance: attributes that always come together share their direction
_STARTS = 8  # of k-means, of which the best is kept
_DEAD = 1e-6  # of the median standard deviation: channels below it say nothing


@dataclasses.dataclass(frozen=True)
class Space:
    """How codes are standardised.

    Attributes:
        mean: of each channel [D].
        std: of each channel [D]; 0 for one that does not vary, which then never moves.
    """

    mean: np.ndarray
    std: np.ndarray

    @classmethod
    def of(cls, z: np.ndarray) -> "Space":
        """The space of codes [N, D]."""
        z = z.astype(np.float64)
        std = z.std(0)
        return cls(z.mean(0), np.where(std > _DEAD * np.median(std), std, 0))

    def standardise(self, z: np.ndarray) -> np.ndarray:
        """Codes [..., D] with mean 0 and standard deviation 1 in each channel."""
        return (z - self.mean) / np.where(self.std > 0, self.std, np.inf)

    def change(self, s: np.ndarray) -> np.ndarray:
        """The change of z that is a change of s [..., D]."""
        return s * self.std


@dataclasses.dataclass(frozen=True)
class Direction:
    """A direction that is followed in the images.

    Attributes:
        name: for readers.
        source: "attribute", "counterfactuals" or "gradient".
        vectors: unit vectors [2, D]; the first was estimated on half 0, the second on half 1.
        facts: what is known of it before its effect is measured, by name.
    """

    name: str
    source: str
    vectors: np.ndarray
    facts: Mapping[str, float]

    @property
    def agreement(self) -> float:
        """Cosine of the two estimates."""
        return float(self.vectors[0] @ self.vectors[1])

    def steps(self, s: np.ndarray) -> np.ndarray:
        """The standard deviation of codes s [N, D] along each vector [2]."""
        return (s @ self.vectors.T).std(0)

    def for_images(self, half: np.ndarray) -> np.ndarray:
        """The vector for each image [N, D]: the one that its own half had no part in."""
        return self.vectors[1 - half]


def split(names: Sequence[str]) -> np.ndarray:
    """Which half each image belongs to, int [N] of 0 and 1; it depends on the names alone."""
    order = sorted(range(len(names)), key=lambda i: (zlib.crc32(names[i].encode()), names[i]))
    half = np.zeros(len(names), int)
    half[order[1::2]] = 1
    return half


def from_attributes(
    s: np.ndarray, half: np.ndarray, attributes: Sequence[Attribute]
) -> tuple[list[Direction], dict[str, tuple[Probe, Probe]], list[str]]:
    """How codes change with each attribute while the others stay, and probes that read it.

    With the attributes of a half standardised, A [n, K], and its codes centred, X [n, D], the
    directions are the rows of

        (A^T A + 0.01 n I)^-1 A^T X

    which for a single attribute of 0 and 1 is the difference of the two means. The weights of a
    probe are no direction to go: they weigh what tells the attribute from everything else, not what
    changes with it (Haufe et al., NeuroImage 87, 2014).

    The facts are how well the probe of one half reads the attribute in the other half: `r2`, and
    `auc` for 0 and 1.

    Returns:
        The directions, the probes of both halves by attribute, and what cannot be said.
    """
    usable, unsaid = [], []
    for attribute in attributes:
        if all(np.ptp(attribute.values[half == h]) for h in HALVES):
            usable.append(attribute)
        else:
            unsaid.append(
                f"{attribute.name} has one value in all images of a half, so that nothing can be "
                "learned of it there: audit more images."
            )
    vectors = [_encoding(s[half == h], usable, half == h) for h in HALVES] if usable else []
    directions, probes = [], {}
    for k, attribute in enumerate(usable):
        a = attribute.values
        both = tuple(fit_probe(s[half == h], a[half == h]) for h in HALVES)
        read = np.where(half == 0, both[1](s), both[0](s))
        facts = {"r2": r2(a, read)}
        if attribute.binary:
            facts["auc"] = area_under_curve(attribute.upper, read)
        probes[attribute.name] = both
        pair = np.stack([vectors[h][k] for h in HALVES])
        directions.append(Direction(attribute.name, "attribute", pair, facts))
    return directions, probes, unsaid


def from_counterfactuals(
    changes: np.ndarray, rises: np.ndarray, half: np.ndarray, clusters: int, seed: int
) -> list[Direction]:
    """The directions in which counterfactuals have moved, as clusters of unit vectors.

    Each change is turned towards a rising prediction. The clusters of the halves are paired by the
    largest sum of cosines. The fact `share` is the share of the changes that a cluster holds.

    Args:
        changes: of s, by result [M, D].
        rises: whether the prediction rose, bool [M].
        half: of the image of each result [M].
        clusters: at most so many per half; an empty one is left out.
        seed: of k-means.
    """
    sizes = np.linalg.norm(changes, axis=1)
    moved = sizes > 0
    units = np.where(rises, 1, -1)[:, None] * changes / np.where(moved, sizes, 1)[:, None]
    found = [_clusters(units[moved & (half == h)], clusters, seed) for h in HALVES]
    pairs = _paired(*(centres for centres, _ in found))
    pairs.sort(key=lambda pair: -(found[0][1][pair[0]] + found[1][1][pair[1]]))
    total = int(moved.sum())
    return [
        Direction(
            f"counterfactuals {number}",
            "counterfactuals",
            np.stack([found[0][0][i], found[1][0][j]]),
            {"share": (found[0][1][i] + found[1][1][j]) / total},
        )
        for number, (i, j) in enumerate(pairs, start=1)
    ]


def from_gradients(gradients: np.ndarray, s: np.ndarray, half: np.ndarray) -> list[Direction]:
    """Where the prediction rises most, per standard deviation of the codes.

    With X the centred codes of all images [N, D], C = X^T X / N and g_i = grad_s f(decode(z_i,
    x_T,i)), the prediction rises most among all u with u^T C^-1 u = 1 along C g. The first
    direction is that of a half's mean gradient. The others are the leading principal directions of
    what it leaves of the half's gradients, h_i = X g_i / sqrt(N): the right singular vectors v of
    h_i - (h_i . m) m as X^T v. A plain gradient would leave the codes that occur. The fact `share`
    is the share of sum_i |h_i|^2 along a direction.

    Args:
        gradients: g, by image [N, D].
        s: codes [N, D].
        half: of each image [N].
    """
    x = (s - s.mean(0)) / np.sqrt(len(s))
    means, rests, shares = [], [], []
    for h in HALVES:
        g = gradients[half == h] @ x.T
        energy = (g**2).sum()
        mean = _unit(g.mean(0))
        if not mean.any():
            return []
        rest = g - np.outer(g @ mean, mean)
        _, values, rows = np.linalg.svd(rest, full_matrices=False)
        kept = [k for k in range(min(_PRINCIPAL, len(values))) if values[k] ** 2 > 1e-6 * energy]
        means.append(_unit(mean @ x))
        found = [_unit(_outwards(rows[k], rest) @ x) for k in kept]
        rests.append(np.array(found).reshape(len(kept), s.shape[1]))
        shares.append([((g @ mean) ** 2).sum() / energy, *(values[kept] ** 2 / energy)])

    def direction(name: str, vectors: Sequence[np.ndarray], i: int, j: int) -> Direction:
        facts = {"share": float(shares[0][i] + shares[1][j]) / 2}
        return Direction(f"gradient, {name}", "gradient", np.stack(vectors), facts)

    found = [direction("mean", means, 0, 0)]
    for number, (i, j) in enumerate(_paired(*rests, signed=False), start=1):
        other = rests[1][j] * (1 if rests[1][j] @ rests[0][i] >= 0 else -1)
        found.append(direction(f"principal {number}", [rests[0][i], other], i + 1, j + 1))
    return found


def _encoding(s: np.ndarray, attributes: Sequence[Attribute], which: np.ndarray) -> np.ndarray:
    """A unit vector per attribute [K, D]: how codes s [n, D] change with it, others held."""
    a = np.stack([attribute.values[which] for attribute in attributes], axis=1)
    a = (a - a.mean(0)) / a.std(0)
    x = s - s.mean(0)
    rows = np.linalg.solve(a.T @ a + _SHARED * len(a) * np.eye(a.shape[1]), a.T @ x)
    return np.stack([_unit(row) for row in rows])


def _unit(vector: np.ndarray) -> np.ndarray:
    """A vector with length 1; 0 stays 0."""
    size = np.linalg.norm(vector)
    return vector / size if size > 0 else vector


def _outwards(vector: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """A vector or its opposite: where the row that it fits best points."""
    along = rows @ vector
    return vector if along[np.abs(along).argmax()] >= 0 else -vector


def _clusters(units: np.ndarray, most: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors in the middle of each cluster [k, D], and their sizes [k]; the largest first."""
    from scipy.cluster.vq import kmeans2

    if not len(units):
        return units, np.zeros(0)
    best: tuple[float, np.ndarray] | None = None
    for start in range(_STARTS):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an empty cluster, which is left out below
            centres, labels = kmeans2(
                units, min(most, len(units)), minit="++", rng=np.random.default_rng([seed, start])
            )
        spread = float(((units - centres[labels]) ** 2).sum())
        if best is None or spread < best[0]:
            best = spread, labels
    sizes = np.bincount(best[1])
    order = [k for k in np.argsort(-sizes, kind="stable") if sizes[k]]
    middles = np.array([_unit(units[best[1] == k].mean(0)) for k in order])
    kept = np.linalg.norm(middles, axis=1) > 0
    return middles[kept], sizes[order][kept]


def _paired(a: np.ndarray, b: np.ndarray, signed: bool = True) -> list[tuple[int, int]]:
    """Which rows of a [n, D] and b [m, D] belong together, by the largest sum of cosines."""
    from scipy.optimize import linear_sum_assignment

    if not len(a) or not len(b):
        return []
    cosines = a @ b.T
    rows, columns = linear_sum_assignment(cosines if signed else np.abs(cosines), maximize=True)
    return list(zip(rows.tolist(), columns.tolist(), strict=True))
