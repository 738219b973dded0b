"""A direction drawn on real images: one step back, as they are, and one step forth."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from diffcf_jax.report.pictures import scale_of

from ..page import grid
from .directions import Direction
from .effects import Base, step
from .subject import REGRESSOR, Subject

_COLUMNS = 6


@dataclasses.dataclass(frozen=True)
class Sheet:
    """Some images with a direction.

    Attributes:
        names: of the images [n].
        rows: "minus", "zero" and "plus": images [n, H, W, 3] in [0, 1].
        y: the predictions for them [n].
    """

    names: Sequence[str]
    rows: Mapping[str, np.ndarray]
    y: Mapping[str, np.ndarray]

    @property
    def changes(self) -> np.ndarray:
        """Plus minus minus, the mean over the channels [n, H, W]."""
        return (self.rows["plus"] - self.rows["minus"]).mean(-1)

    @property
    def scale(self) -> float:
        """The change that is drawn in full colour."""
        return scale_of(self.changes)

    def grid(self) -> np.ndarray:
        """All rows as one picture, uint8."""
        return grid(self.rows)


def draw_sheet(subject: Subject, base: Base, direction: Direction, amount: float) -> Sheet:
    """Draw a direction on a few images, spread evenly over the predictions."""
    order = np.argsort(base.y[REGRESSOR], kind="stable")
    count = min(_COLUMNS, len(order))
    chosen = order[np.linspace(0, len(order) - 1, count).round().astype(int)]
    change = step(direction, subject, amount)[chosen]
    rows = {
        "minus": subject.render(-change, chosen),
        "zero": base.images[chosen],
        "plus": subject.render(change, chosen),
    }
    y = {name: subject.read(images) for name, images in rows.items()}
    return Sheet([subject.names[i] for i in chosen], rows, y)
