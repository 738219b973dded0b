"""What a task of the benchmark makes: two regressors' runs, and the truth about what is planted."""

import csv
import dataclasses
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffcf_jax.files import write_file
from diffcf_jax.regressors.readings import Predict


@dataclasses.dataclass(frozen=True, eq=False)
class Planted:
    """A task, ready to be run; the images are in the order of their names.

    Attributes:
        feature: what is planted, an attribute of the table.
        table: the path of the attributes.
        configs: by regressor ("planted", "clean"), the arguments of `run` but its workdir.
        area: where the feature is, bool [N, H, W].
        repaint: (an edit, the reconstructions), [N, H, W, 3] in [0, 1] -> by how much the edit
            changes the feature [N], and the reconstructions with that change alone, made by hand.
        whole: (what reads images) -> what it really changes to put the whole feature into the
            images themselves [N]; None where it comes in no pieces.
    """

    feature: str
    table: Path
    configs: Mapping[str, Mapping[str, Any]]
    area: np.ndarray
    repaint: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
    whole: Callable[[Predict], np.ndarray] | None = None


def write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table as `diffcf` reads it: comma-separated, one row per image."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows([header, *rows])
    write_file(path, buffer.getvalue().encode())


def write_attributes(
    path: Path, names: Sequence[str], known: Mapping[str, np.ndarray], random: int
) -> None:
    """Write the table of attributes: what is known of the images, and columns of random numbers."""
    drawn = np.random.default_rng(0).standard_normal((len(names), random))
    header = ["name", *known, *(f"random {k + 1}" for k in range(random))]
    values = np.column_stack([*known.values(), drawn]).tolist()
    write_table(path, header, ([name, *row] for name, row in zip(names, values, strict=True)))
