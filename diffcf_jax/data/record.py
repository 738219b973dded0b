"""The one record type that every data set of the package yields."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Record:
    """One image of a data set with what is known about it.

    A data set is any object with `__len__`, `__getitem__(i) -> Record` (random access, a pure
    function of `i`, `UserError` for a bad file) and, known without reading an image, `names`, the
    list of all names; those that can be explained also have `target(i)`.

    Attributes:
        id: position in the data set; stable, so that randomness can be derived from it.
        name: file name, posix, relative to the data set's folder; results are stored under it.
        image: uint8 [H, W, 3].
        y: true value, in the label's unit, if known.
        target: value that the counterfactual should reach, if the data set says so.
        mask: bool [H, W], True inside the 8x8 inner square; squares only.
    """

    id: int
    name: str
    image: np.ndarray
    y: float | None = None
    target: float | None = None
    mask: np.ndarray | None = None
