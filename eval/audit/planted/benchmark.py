"""Explains and audits a regressor with a planted feature and a clean one, and knows the truth."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffcf_jax.errors import UserError
from diffcf_jax.files import inside, write_file
from diffcf_jax.jsonfile import strict_json
from diffcf_jax.results.statistics import Interval, bootstrap_mean
from diffcf_jax.workdir import differences, read_config, write_config

from ...figure import check_matplotlib, figure_bytes
from ..attributes import Attribute, read_attributes
from ..audit import audit, conclude
from ..directions import from_attributes
from ..effects import reconstruct, step
from ..subject import Subject, image_names, open_subject
from . import faces, squares
from .figure import draw
from .task import Planted

TASKS = {"squares": squares.prepare, "faces": faces.prepare}


def benchmark(
    workdir: Path, task: str = "squares", images: int = 96, random: int = 8, shams: int = 1
) -> dict[str, Any]:
    """Explain both regressors by Diff-AE-RE on the same images, audit them, and compare.

    Both are audited with the same table, which has columns of random numbers, and without one.
    Writes DIR/planted.json, planted.png and planted.svg.

    Args:
        workdir: gets networks and runs as well; those that are there are not made again.
        task: a key of `TASKS`.
        images: to explain.
        random: columns of random numbers.
        shams: see `audit`.

    Returns:
        By regressor ("planted", "clean"): `rows` of `audit`, the names of those `flagged`, their
        `share`, and the same without a table in `blind`. `feature` is the row of what is planted,
        `first` whether it is flagged before all others. `truth` has the real change of the
        prediction by what the audit's edit changes of the feature ("effect") and, where the task
        knows it, by the whole feature ("whole"), `within` whether the row's intervals of that name
        contain its mean. `moved` is by how much the edit changes the feature, `alone` the effect of
        the edit in the feature's area. All with intervals.

    Raises:
        UserError: whatever is wrong with the workdir, the photographs or a network; matplotlib is
            not installed.
    """
    from diffcf_jax.run import run

    check_matplotlib()
    config = {"task": task, "images": images, "random": random}
    if differing := differences(read_config(workdir) or config, config, ()):
        raise UserError(f"{workdir} holds another benchmark: {differing}. Give another --workdir.")
    write_config(workdir, config)
    planted = TASKS[task](workdir, images, random)
    found: dict[str, Any] = {}
    for name, config in planted.configs.items():
        folder = inside(workdir, name)
        run(folder, **config)
        made = audit(folder, planted.table, shams=shams)
        rows = made["directions"]
        # Other directions do not depend on the table; only their number is another without it.
        others = [row for row in rows if row["source"] != "attribute"]
        blind = conclude(others, made["smallest"], made["unit"])
        found[name] = {"unit": made["unit"], **_flagged(rows), "blind": _flagged(blind)}
        found[name] |= _compare(folder, planted, found[name])
    write_file(workdir / "planted.json", (strict_json(found, indent=2) + "\n").encode())
    for form in ("png", "svg"):
        write_file(workdir / f"planted.{form}", figure_bytes(draw(found), form))
    return found


def _flagged(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    flagged = [row["name"] for row in rows if row["verdict"] == "flagged"]
    return {"rows": rows, "flagged": flagged, "share": len(flagged) / len(rows)}


def _compare(folder: Path, planted: Planted, audited: dict[str, Any]) -> dict[str, Any]:
    subject = open_subject(folder, image_names(folder))
    table = read_attributes(planted.table, subject.names)
    moved, real, alone = real_changes(subject, table, planted)
    truth = {"effect": bootstrap_mean(real)}
    if planted.whole:
        truth["whole"] = bootstrap_mean(planted.whole(subject.read))
    (row,) = (row for row in audited["rows"] if row["name"] == planted.feature)
    return {
        "feature": row,
        "first": audited["flagged"][:1] == [planted.feature],
        "truth": truth,
        "within": {key: _within(value, row[key]) for key, value in truth.items()},
        "moved": bootstrap_mean(moved),
        "alone": bootstrap_mean(alone),
    }


def real_changes(
    subject: Subject, table: Sequence[Attribute], planted: Planted
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How much an edit along the planted feature changes it, and what that really does.

    Each reconstruction gets the change of the feature that the edit makes there, by hand, and
    nothing else is changed. As the edit, this is followed both ways, and half of the difference
    counts.

    Args:
        subject: the audited run.
        table: what it was audited with.
        planted: the task.

    Returns:
        The change of the feature [N], that of the regressor's prediction [N], and the same where
        the feature's area is the edit's own and everything else that of the reconstruction.
    """
    directions, *_ = from_attributes(subject.codes, subject.half, table)
    (direction,) = (one for one in directions if one.name == planted.feature)
    base = reconstruct(subject).images
    change = step(direction, subject, 1.0)
    moved, read, own = [], [], []
    for edit in (subject.render(change), subject.render(-change)):
        by, repainted = planted.repaint(edit, base)
        moved.append(by)
        read.append(subject.read(repainted))
        own.append(subject.read(np.where(planted.area[..., None], edit, base)))
    return tuple((forth - back) / 2 for forth, back in (moved, read, own))


def _within(truth: Interval, found: Interval | None) -> bool:
    if not found or found["low"] is None:
        return False
    return found["low"] <= truth["mean"] <= found["high"]
