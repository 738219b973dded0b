"""A linear probe: ridge regression in closed form, with its strength chosen by leaving one out."""

import dataclasses

import numpy as np

_STRENGTHS = np.geomspace(1e-4, 1e2, 13)  # of the ridge, in mean eigenvalues


@dataclasses.dataclass(frozen=True)
class Probe:
    """Reads a(s) = mean + (s - centre) . weights.

    Attributes:
        weights: [D].
        centre: mean code of the images that it was fitted to [D].
        mean: of the attribute there.
    """

    weights: np.ndarray
    centre: np.ndarray
    mean: float

    def __call__(self, s: np.ndarray) -> np.ndarray:
        """What it reads in codes [..., D]."""
        return self.mean + (s - self.centre) @ self.weights


def fit_probe(s: np.ndarray, a: np.ndarray) -> Probe:
    """Fit a probe of a [n] to codes s [n, D].

        w = X^T (K + r I)^-1 (a - mean),    X = s - centre,    K = X X^T

    With H = K (K + r I)^-1 the residuals, each with its image left out, are
    (a - mean - H (a - mean)) / (1 - 1/n - diag H); r has the least sum of their squares.

    Reference: Golub, Heath and Wahba, Generalized cross-validation, Technometrics 21, 1979.
    """
    centre, mean = s.mean(0), float(a.mean())
    x, y = s - centre, a - mean
    eigenvalues, vectors = np.linalg.eigh(x @ x.T)
    eigenvalues = eigenvalues.clip(0)
    projected = vectors.T @ y
    best, weights = np.inf, np.zeros(s.shape[1])
    if not eigenvalues.any():
        return Probe(weights, centre, mean)
    for ridge in _STRENGTHS[::-1] * eigenvalues.mean():
        kept = eigenvalues / (eigenvalues + ridge)
        left_out = 1 - 1 / len(y) - (vectors**2) @ kept
        if (left_out <= 1e-9).any():
            continue
        error = float((((y - vectors @ (kept * projected)) / left_out) ** 2).sum())
        if error < best:
            best, weights = error, x.T @ (vectors @ (projected / (eigenvalues + ridge)))
    return Probe(weights, centre, mean)


def r2(a: np.ndarray, read: np.ndarray) -> float:
    """The share of the variance of a that the readings explain; below 0 where they are worse."""
    return float(1 - ((a - read) ** 2).sum() / ((a - a.mean()) ** 2).sum())


def area_under_curve(positive: np.ndarray, score: np.ndarray) -> float:
    """How often an image with the attribute scores above one without; ties count half."""
    from scipy.stats import rankdata

    n = int(positive.sum())
    ranks = rankdata(score)[positive].sum()
    return float((ranks - n * (n + 1) / 2) / (n * (len(positive) - n)))
