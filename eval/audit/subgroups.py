"""Whether a direction does more in one group of images than in another."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from diffcf_jax.results.statistics import bootstrap_contrast, bootstrap_mean

from .attributes import Attribute
from .effects import Probes, probe_changes
from .subject import Subject

_RESAMPLES = 2000
_FEWEST = 2  # images in a group


def contrasts(effect: np.ndarray, attributes: Sequence[Attribute]) -> list[dict[str, Any]]:
    """The effect in both groups of each attribute, and how much larger it is in the first.

    The groups are 1 and 0, or above the median and the others.

    Args:
        effect: tau [N].
        attributes: of the same images.

    Returns:
        By attribute: `attribute`, `groups` (their names), `with`, `without` (`bootstrap_mean`) and
        `contrast` (`bootstrap_contrast`, without a mean where a group has less than 2 images).
    """
    return [
        {
            "attribute": attribute.name,
            "groups": ["1", "0"] if attribute.binary else ["above the median", "up to the median"],
            "with": bootstrap_mean(effect[attribute.upper]),
            "without": bootstrap_mean(effect[~attribute.upper]),
            "contrast": bootstrap_contrast(effect[attribute.upper], effect[~attribute.upper]),
        }
        for attribute in attributes
    ]


def regression(
    change: np.ndarray, moved: Mapping[str, np.ndarray], image: np.ndarray, seed: int
) -> dict[str, Any] | None:
    """Ordinary least squares of the predictions' changes on the attributes' changes.

        change_j = c + sum_k b_k moved_jk + error

    The intervals are percentiles of 2,000 resamples of whole images.

    Args:
        change: of the prediction, one per counterfactual [M].
        moved: of each attribute, in standard deviations of its probe's readings [M].
        image: of each counterfactual, a number [M].
        seed: of the resamples.

    Returns:
        `slopes` (attribute -> `mean`, `low`, `high`: the change of the prediction with one standard
        deviation more of the attribute, the others held), `r2` and `n`; None where there are too
        few images for the attributes, or these always change together.
    """
    x = np.stack([np.ones_like(change), *moved.values()], axis=1).astype(np.float64)
    images, index = np.unique(image, return_inverse=True)
    if not moved or len(images) < x.shape[1] + 1 or np.linalg.matrix_rank(x) < x.shape[1]:
        return None
    gram = np.zeros((len(images), x.shape[1], x.shape[1]))
    right = np.zeros((len(images), x.shape[1]))
    np.add.at(gram, index, x[:, :, None] * x[:, None])
    np.add.at(right, index, x * change[:, None])
    random = np.random.default_rng(seed)
    counts = random.multinomial(len(images), np.full(len(images), 1 / len(images)), _RESAMPLES)
    whole = np.linalg.solve(gram.sum(0), right.sum(0))
    drawn = np.einsum(
        "rij,rj->ri",
        np.linalg.pinv(np.einsum("ri,ijk->rjk", counts, gram), hermitian=True),
        counts @ right,
    )
    low, high = np.quantile(drawn, (0.025, 0.975), axis=0)
    rest = change - x @ whole
    spread = float(((change - change.mean()) ** 2).sum())
    return {
        "slopes": {
            name: {"mean": float(whole[k]), "low": float(low[k]), "high": float(high[k])}
            for k, name in enumerate(moved, start=1)
        },
        "r2": 1 - float((rest**2).sum()) / spread if spread else None,
        "n": len(change),
    }


def counterfactual_regression(subject: Subject, probes: Probes) -> dict[str, Any] | None:
    """`regression` of the counterfactuals; each is read by the probe of the other half."""
    half = subject.half[subject.image_of]
    moved = {
        name: probe_changes(subject.changes, 1 - half, both, subject.codes)
        for name, both in probes.items()
    }
    return regression(subject.after - subject.before, moved, subject.image_of, subject.seed)
