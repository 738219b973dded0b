"""The reverse question: how much of what the counterfactuals did lies along a direction."""

import dataclasses
from typing import Any

import numpy as np

from diffcf_jax.results.statistics import bootstrap_ratio

from .directions import Direction
from .effects import Base
from .subject import REGRESSOR, Subject


@dataclasses.dataclass(frozen=True)
class Whole:
    """The counterfactuals, rendered again from their changes of s.

    Attributes:
        towards: 1 where the prediction rose, -1 where it fell [M].
        change: what the whole change of s does to the prediction [M], times `towards`.
        names: the image of each [M].
    """

    towards: np.ndarray
    change: np.ndarray
    names: list[str]


def whole_changes(subject: Subject, base: Base) -> Whole:
    """Render the whole change of every counterfactual."""
    towards = np.where(subject.after >= subject.before, 1, -1)
    change = towards * _effect(subject, base, subject.changes)
    return Whole(towards, change, [subject.names[i] for i in subject.image_of])


def kept(subject: Subject, whole: Whole) -> Any:
    """How much of the counterfactuals' change is there when their codes are rendered, a ratio."""
    change = whole.towards * (subject.after - subject.before)
    return bootstrap_ratio(whole.change, change, whole.names)


def rchange(subject: Subject, base: Base, whole: Whole, direction: Direction) -> dict[str, Any]:
    """How much of the change of the prediction a direction explains, and how much remains.

        explained = sum_j y(z + (D_j . u) u) - y(z)  /  sum_j y(z + D_j) - y(z)
        remaining = sum_j y(z + D_j - (D_j . u) u) - y(z)  /  the same

    over the counterfactuals j with their changes D_j of s, each turned towards a rising prediction,
    and u from the other half than the image's. Both are ratios of means; they need not add up to 1,
    because the decoding and the regressor are not linear.
    """
    u = direction.for_images(subject.half)[subject.image_of]
    along = (subject.changes * u).sum(1, keepdims=True) * u
    parts = {"explained": along, "remaining": subject.changes - along}
    return {
        name: bootstrap_ratio(
            whole.towards * _effect(subject, base, part), whole.change, whole.names
        )
        for name, part in parts.items()
    }


def _effect(subject: Subject, base: Base, changes: np.ndarray) -> np.ndarray:
    """What changes of s, one per counterfactual [M, D], do to the predictions [M]."""
    images = subject.render(changes, subject.image_of)
    return subject.read(images) - base.y[REGRESSOR][subject.image_of]
