"""Distances between two sets of images, on the features of a network.

Each takes features a [n, D] of real images and b [m, D] of generated ones, in the same order where
they are pairs, and computes in float64. They name no network: on Inception's pooled features the
Fréchet distance is FID, on others it is FD with the network's name.
"""

import numpy as np

from diffcf_jax.training.frechet import frechet_distance

__all__ = [
    "cmmd", "frechet_distance", "kernel_distance", "neighbourhoods", "split_frechet_distance",
    "squared_distances",
]  # fmt: skip


def split_frechet_distance(a: np.ndarray, b: np.ndarray, repeats: int = 10, seed: int = 0) -> float:
    """Fréchet distance between halves that share no pair, averaged (sFID of Jeanneret et al.).

        mean over splits of (FD(a[H], b[rest]) + FD(a[rest], b[H])) / 2

    A counterfactual is close to its own original, which flatters the plain distance; here no image
    is compared with its own original.

    Args:
        a: [n, D], n at least 4.
        b: [n, D], b[i] made of a[i].
        repeats: random splits.
        seed: of the splits.

    Reference: Jeanneret et al., Adversarial counterfactual visual explanations, CVPR 2023.
    """
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(repeats):
        order = rng.permutation(len(a))
        half, rest = order[: len(a) // 2], order[len(a) // 2 :]
        found += [frechet_distance(a[half], b[rest]), frechet_distance(a[rest], b[half])]
    return float(np.mean(found))


def kernel_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Unbiased squared maximum mean discrepancy with k(x, y) = (x.y / D + 1)^3 (KID).

    It can be negative. No subsets are drawn: all pairs count.

    Args:
        a: [n, D], n at least 2.
        b: [m, D], m at least 2.

    Reference: Binkowski et al., Demystifying MMD GANs, ICLR 2018.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)

    def among(x: np.ndarray) -> float:
        kernel = (x @ x.T / x.shape[1] + 1) ** 3
        return (kernel.sum() - np.trace(kernel)) / (len(x) * (len(x) - 1))

    return float(among(a) + among(b) - 2 * np.mean((a @ b.T / a.shape[1] + 1) ** 3))


def cmmd(a: np.ndarray, b: np.ndarray, sigma: float = 10.0) -> float:
    """1000 times the squared MMD with k(x, y) = exp(-|x - y|^2 / (2 sigma^2)), diagonals included.

    On the normalised image embeddings of CLIP ViT-L/14 at 336 pixels this is CMMD.

    Args:
        a: [n, D].
        b: [m, D].
        sigma: width of the kernel.

    Reference: Jayasumana et al., Rethinking FID, CVPR 2024.
    """

    def mean_kernel(x: np.ndarray, y: np.ndarray) -> float:
        return float(np.mean(np.exp(-squared_distances(x, y) / (2 * sigma**2))))

    return 1000 * (mean_kernel(a, a) + mean_kernel(b, b) - 2 * mean_kernel(a, b))


def neighbourhoods(a: np.ndarray, b: np.ndarray, k: int = 5) -> dict[str, float]:
    """Precision, recall, density and coverage by the spheres up to the k-th neighbour.

    With B(x) the open ball around x whose radius is the distance to x's k-th neighbour in its own
    set:

        precision = share of b in some B(a_i)        density  = mean over b of #{i: b in B(a_i)} / k
        recall    = share of a in some B(b_j)        coverage = share of B(a_i) that hold some b_j

    Args:
        a: [n, D] real, n more than k.
        b: [m, D] generated, m more than k.
        k: which neighbour.

    References: Kynkäänniemi et al., NeurIPS 2019; Naeem et al., ICML 2020.
    """
    between = squared_distances(a, b)
    radius_a, radius_b = (np.partition(squared_distances(x, x), k, axis=1)[:, k] for x in (a, b))
    inside_a = between < radius_a[:, None]
    return {
        "precision": float(inside_a.any(0).mean()),
        "recall": float((between < radius_b).any(1).mean()),
        "density": float(inside_a.sum(0).mean() / k),
        "coverage": float(inside_a.any(1).mean()),
    }


def squared_distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """|x_i - y_j|^2 [n, m] of x [n, D] and y [m, D]."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    squared = (x**2).sum(1)[:, None] + (y**2).sum(1) - 2 * x @ y.T
    return np.maximum(squared, 0, out=squared)
