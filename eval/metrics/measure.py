"""Measures batches of results, whatever made them: a run, or the control."""

import collections
import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from scipy import stats

from .batch import Batch, Features
from .faces import correlation_difference
from .nearest import too_near
from .plan import Plan
from .realism import region_metric, set_metrics
from .region import regions

# What `cd` compares, beside the networks
_Y, _ATTRIBUTES = "of regressor", "of attributes"
# Begins the names of networks that see the regions of masks alone
_REGION = "region of "


@dataclasses.dataclass(frozen=True)
class Measured:
    """What was measured of N results.

    Attributes:
        y: the regressor's predictions [N].
        values: metric -> one value per result [N].
        sets: metric -> value of the whole set.
    """

    y: np.ndarray
    values: dict[str, np.ndarray]
    sets: dict[str, float]


def measure(parts: Iterable[Batch], predict: Features, plan: Plan) -> Measured:
    """Measures all batches.

    Args:
        parts: the batches.
        predict: the explained regressor.
        plan: what to measure.
    """
    values: dict[str, list[np.ndarray]] = collections.defaultdict(list)
    before: dict[str, list[np.ndarray]] = collections.defaultdict(list)
    after: dict[str, list[np.ndarray]] = collections.defaultdict(list)
    looks = dict(plan.features)
    if plan.attributes is not None:
        looks |= {_Y: predict, _ATTRIBUTES: plan.attributes}
    targets: list[float | str] = []
    predictions = []
    for batch in parts:
        y = predict(batch.images)
        predictions.append(y)
        targets += batch.targets
        for group in plan.measures:
            for name, found in group(batch, y).items():
                values[name].append(found)
        for name, look in looks.items():
            after[name].append(look(batch.images))
            before[name].append(look(batch.inputs))
        for name, look in plan.features.items():
            if plan.full and batch.allowed is not None:
                after[_REGION + name].append(look(regions(batch, batch.images)))
                before[_REGION + name].append(look(regions(batch, batch.inputs)))
    y = np.concatenate(predictions)
    measured, made, known = (_joined(found) for found in (values, after, before))
    sets = too_near(measured) | (_line(y, targets) if plan.full else {})
    for name in plan.features:
        succeeded = measured["success_rate"] == 1
        sets |= set_metrics(name, known[name], made[name], succeeded, plan.full)
        if (of_region := _REGION + name) in made:
            sets |= region_metric(name, known[of_region], made[of_region])
    if plan.attributes is not None:
        sets["cd"] = correlation_difference(
            known[_Y], made[_Y], known[_ATTRIBUTES], made[_ATTRIBUTES]
        )
    return Measured(y, measured, sets)


def _joined(parts: Mapping[str, list[np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate(found) for name, found in parts.items()}


def _line(y: np.ndarray, targets: Sequence[float | str]) -> dict[str, float]:
    """Slope, intercept and R^2 of the predictions over those targets that are numbers."""
    points = [(t, p) for t, p in zip(targets, y, strict=True) if not isinstance(t, str)]
    nan = float("nan")
    if len({t for t, _ in points}) < 2:
        return {"slope": nan, "intercept": nan, "r2": nan}
    fit = stats.linregress(*np.asarray(points, np.float64).T)
    return {"slope": fit.slope, "intercept": fit.intercept, "r2": fit.rvalue**2}
