"""Means with intervals, and comparisons of runs: all of them count images, not results.

Several results of one image (its targets, its answers) are not independent. Intervals therefore
draw whole images, and tests see one number per image.
"""

import warnings
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence

import numpy as np

# "mean", "low", "high", "n", and "unit" where the values have one
Interval = dict[str, float | int | str | None]

_RESAMPLES = 2000


def bootstrap_mean(
    values: Iterable[float | bool | None], images: Sequence[Hashable] | None = None
) -> Interval:
    """Mean with its 95% bootstrap interval, bias-corrected and accelerated (BCa).

    The images are drawn with replacement, always with the same seed, each with all its values v:

        mean = sum_i sum_j v_ij / sum_i n_i        over the images i and their n_i values.

    None, NaN and infinite values are left out. Where the images do not differ, also if there is
    only one, the interval is the mean.

    Args:
        values: one per result.
        images: the image of each value, such as its name; None: each value is of another one.

    Returns:
        {"mean", "low", "high", "n"}, where n counts the values used; the first three are None when
        there are none.

    Reference: Efron, Better bootstrap confidence intervals, JASA 82, 1987.
    """
    x = np.array([np.nan if value is None else float(value) for value in values])
    used = np.isfinite(x)
    if not used.any():
        return {"mean": None, "low": None, "high": None, "n": 0}
    index = _indices(range(len(x)) if images is None else images)[used]
    x = x[used]
    counts = np.bincount(index)
    sums = np.bincount(index, weights=x)[counts > 0]
    counts = counts[counts > 0]
    low = high = mean = float(x.mean())
    means = sums / counts
    if np.ptp(means) > 4 * np.finfo(float).eps * np.abs(means).max():
        low, high = _bca(lambda s, n, axis: s.sum(axis) / n.sum(axis), (sums, counts), True)
    return {"mean": mean, "low": low, "high": high, "n": int(x.size)}


def bootstrap_ratio(
    numerators: Iterable[float], denominators: Iterable[float], images: Sequence[Hashable]
) -> Interval:
    """Ratio of two means of the same results with its 95% interval, as `bootstrap_mean`.

        mean = sum_i sum_j a_ij / sum_i sum_j b_ij

    Args:
        numerators: a, one per result; where a or b is not finite, the result is left out.
        denominators: b.
        images: the image of each result.

    Returns:
        {"mean", "low", "high", "n"}; the first three are None where b sums to 0.
    """
    a, b = (np.array([float(v) for v in values]) for values in (numerators, denominators))
    used = np.isfinite(a) & np.isfinite(b)
    n = int(used.sum())
    if not n or not b[used].sum():
        return {"mean": None, "low": None, "high": None, "n": n}
    index = _indices([image for image, use in zip(images, used, strict=True) if use])
    sums = [np.bincount(index, weights=values[used]) for values in (a, b)]
    low = high = ratio = float(sums[0].sum() / sums[1].sum())
    if np.ptp(sums[0] - ratio * sums[1]) > 8 * np.finfo(float).eps * np.abs(sums).max():
        low, high = _bca(lambda s, n, axis: s.sum(axis) / n.sum(axis), sums, True)
    return {"mean": ratio, "low": low, "high": high, "n": n}


def bootstrap_contrast(a: Sequence[float], b: Sequence[float]) -> Interval:
    """Difference of the means of two groups of images, mean(a) - mean(b), with its 95% interval.

    Args:
        a: one value per image of the first group.
        b: the same of the second; no image is in both.

    Returns:
        {"mean", "low", "high", "n"}; the first three are None where a group has less than 2 images.
    """
    groups = [np.asarray(values, np.float64) for values in (a, b)]
    groups = [values[np.isfinite(values)] for values in groups]
    n = sum(map(len, groups))
    if min(map(len, groups)) < 2:
        return {"mean": None, "low": None, "high": None, "n": n}
    low = high = mean = float(groups[0].mean() - groups[1].mean())
    if max(map(np.ptp, groups)) > 4 * np.finfo(float).eps * max(np.abs(v).max() for v in groups):
        low, high = _bca(lambda x, y, axis: x.mean(axis) - y.mean(axis), groups, False)
    return {"mean": mean, "low": low, "high": high, "n": n}


def paired_difference(
    a: Mapping[Hashable, float], b: Mapping[Hashable, float], image_of: Mapping[Hashable, Hashable]
) -> dict[str, float | int | None]:
    """How much the results b differ from the results a of the same images and targets.

    Args:
        a: result -> value; NaN is left out.
        b: the same for the other run; what stands in one of the two only is left out.
        image_of: result -> its image.

    Returns:
        `bootstrap_mean` of b - a, clustered by image, and `p`: the two-sided p-value of Wilcoxon's
        signed-rank test on the mean difference of each image, exact without ties and below 51
        images. 1 where no image differs; None without a common result.

    Reference: Wilcoxon, Individual comparisons by ranking methods, Biometrics 1, 1945.
    """
    common = [key for key in a if key in b and np.isfinite(a[key]) and np.isfinite(b[key])]
    differences = np.array([b[key] - a[key] for key in common])
    interval = bootstrap_mean(differences, [image_of[key] for key in common])
    if not common:
        return {**interval, "p": None}
    index = _indices([image_of[key] for key in common])
    means = np.bincount(index, weights=differences) / np.bincount(index)
    if not means.any():
        return {**interval, "p": 1.0}
    from scipy import stats

    return {**interval, "p": float(stats.wilcoxon(means).pvalue)}


def holm(p: Sequence[float | None]) -> list[float | None]:
    """P-values adjusted for their number, by Holm's step-down procedure.

        p'_(k) = max_{j <= k} min(1, (m - j + 1) p_(j))        with p_(1) <= ... <= p_(m)

    None stays None and does not count.

    Reference: Holm, A simple sequentially rejective multiple test procedure, 1979.
    """
    known = sorted((value, i) for i, value in enumerate(p) if value is not None)
    adjusted: list[float | None] = [None] * len(p)
    largest = 0.0
    for rank, (value, i) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - rank) * value))
        adjusted[i] = largest
    return adjusted


def _bca(
    statistic: Callable[..., np.ndarray], samples: Sequence[np.ndarray], paired: bool
) -> tuple[float | None, float | None]:
    """The 95% BCa interval of a statistic (*samples, axis); None where it is not defined."""
    from scipy import stats  # here, because importing it takes half a second

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)  # its ends are NaN
        found = stats.bootstrap(
            tuple(samples), statistic, paired=paired, n_resamples=_RESAMPLES,
            batch=max(1, 10_000_000 // max(map(len, samples))), method="BCa",
            rng=np.random.default_rng(0),
        ).confidence_interval  # fmt: skip
    low, high = (float(end) if np.isfinite(end) else None for end in found)
    return (low, high) if None not in (low, high) else (None, None)


def _indices(labels: Iterable[Hashable]) -> np.ndarray:
    """Labels as numbers from 0, in the order in which they appear first."""
    seen: dict[Hashable, int] = {}
    return np.array([seen.setdefault(label, len(seen)) for label in labels])
