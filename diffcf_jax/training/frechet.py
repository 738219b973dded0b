"""The Fréchet distance between two sets of images, on the features of a regressor."""

from typing import Any

import flax.linen as nn
import jax
import numpy as np

from diffcf_jax.training.regression import HEADS

Array = jax.Array


def features(module: nn.Module, variables: Any, images: Array) -> Array:
    """What a regressor's last layer sees of images [B, H, W, 3] in [0, 1]: [B, D]."""
    found = []

    def look(call: Any, args: tuple, kwargs: dict, context: nn.module.InterceptorContext) -> Any:
        if context.module.name in HEADS:
            found.append(args[0])
        return call(*args, **kwargs)

    with nn.intercept_methods(look):
        module.apply(variables, images)
    return found[-1]


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """|mean_a - mean_b|^2 + Tr(C_a + C_b - 2 (C_a C_b)^(1/2)) (Heusel et al., 2017, eq. 6).

    The trace of the root is the nuclear norm of A B^T / sqrt((n - 1) (m - 1)), with the centred
    samples A and B, so that no root of a matrix that may be singular has to be taken.

    Args:
        a: [n, D], n at least 2.
        b: [m, D], m at least 2.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    mean_a, mean_b = a.mean(0), b.mean(0)
    a = (a - mean_a) / np.sqrt(len(a) - 1)
    b = (b - mean_b) / np.sqrt(len(b) - 1)
    root = np.linalg.norm(a @ b.T, "nuc")
    return float(np.sum((mean_a - mean_b) ** 2) + np.sum(a**2) + np.sum(b**2) - 2 * root)
