"""A benchmark of the audit: does it find what is planted, and only that?

    python -m eval.audit.planted --workdir DIR

The planted regressor has learned to read the background of the squares (train/squares_planted);
the clean one is squares_regressor. Both are explained by Diff-AE-RE on the same squares, and
audited with the same table: what the squares show, and columns of random numbers.

The truth is known without the audit: how much the regressor's prediction really changes when the
pixels of the background are made brighter, or darker, by as much as the edit along the direction
"background" makes them. Writes DIR/planted.json, planted.png and planted.svg.
"""

import csv
import io
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from absl import flags

from diffcf_jax import cli
from diffcf_jax.data.squares import IMAGE_SIZE, SIDE, Squares
from diffcf_jax.files import encode_png, inside, make_folder, write_file
from diffcf_jax.jsonfile import strict_json
from diffcf_jax.results.statistics import Interval, bootstrap_mean

from ..figure import check_matplotlib, figure_bytes, new_figure
from .attributes import Attribute, read_attributes
from .audit import audit
from .directions import from_attributes
from .effects import reconstruct, step
from .subject import Subject, image_names, open_subject

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = ("red", "background", "row", "column")  # by the latents of the squares
PLANTED = "background"


def benchmark(
    workdir: Path,
    planted: str = "squares_planted",
    images: int = 96,
    random: int = 8,
    shams: int = 1,
) -> dict[str, Any]:
    """Explain and audit both regressors; write the figures.

    Args:
        workdir: gets the runs as well, which are not made again.
        planted: network directory of the planted regressor.
        images: squares, drawn at random from the validation set.
        random: columns of random numbers.
        shams: see `audit`.

    Returns:
        By regressor ("planted", "clean"): `rows` of `audit`, the names of those `flagged` and their
        `share`. Of the planted one also `first`, whether "background" is flagged before all others,
        `moved`, by how much its edits brighten the background, `truth`, the real change, `alone`,
        the effect of what its edits change in the background, without what they change in the
        square, all with intervals, and `within`, whether the interval of the effect contains the
        mean truth.

    Raises:
        UserError: whatever is wrong with the workdir or the network; matplotlib is not installed.
    """
    from diffcf_jax.configs import squares_diffae
    from diffcf_jax.run import run

    check_matplotlib()
    count = len(Squares("validation"))
    chosen = np.sort(np.random.default_rng(0).choice(count, min(images, count), replace=False))
    _write_images(workdir, chosen, random)
    found: dict[str, Any] = {}
    for name, regressor in (("planted", planted), ("clean", "squares_regressor")):
        config = squares_diffae.get_config()
        config.regressor.checkpoint = regressor
        config.data.path = str(workdir / "images")
        folder = inside(workdir, name)
        run(folder, **config.to_dict())
        rows = audit(folder, workdir / "attributes.csv", shams=shams)["directions"]
        flagged = [row["name"] for row in rows if row["verdict"] == "flagged"]
        found[name] = {"rows": rows, "flagged": flagged, "share": len(flagged) / len(rows)}
    subject = open_subject(workdir / "planted", image_names(workdir / "planted"))
    table = read_attributes(workdir / "attributes.csv", subject.names)
    corners = Squares("validation").latents[chosen, 2:]
    around = np.stack([outside_square(*corner) for corner in corners])
    moved, real, alone = real_changes(subject, table, around)
    truth = bootstrap_mean(real)
    row = next(row for row in found["planted"]["rows"] if row["name"] == PLANTED)
    found["planted"] |= {
        "moved": bootstrap_mean(moved),
        "truth": truth,
        "alone": bootstrap_mean(alone),
        "first": found["planted"]["flagged"][:1] == [PLANTED],
        "within": _within(truth, row["effect"]),
    }
    write_file(workdir / "planted.json", (strict_json(found, indent=2) + "\n").encode())
    for form in ("png", "svg"):
        write_file(workdir / f"planted.{form}", figure_bytes(draw(found), form))
    return found


def real_changes(
    subject: Subject, table: Sequence[Attribute], around: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How much an edit along "background" brightens the background, and what that really does.

    The pixels of the background of each reconstruction are made brighter by the mean change that
    the edit makes there, and nothing else is changed. As the edit, this is followed both ways, and
    half of the difference counts.

    Args:
        subject: the audited run.
        table: what it was audited with.
        around: the background of its images, bool [N, H, W].

    Returns:
        The change of the background [N] in [0, 1], that of the regressor's prediction [N], and the
        same where the background is the edit's own and the square that of the reconstruction.
    """
    directions, *_ = from_attributes(subject.codes, subject.half, table)
    (direction,) = (one for one in directions if one.name == PLANTED)
    base = reconstruct(subject)
    change = step(direction, subject, 1.0)
    moved, read, own = [], [], []
    for edit in (subject.render(change), subject.render(-change)):
        moved.append((edit - base.images).mean(-1).mean((1, 2), where=around))
        brighter = base.images + np.where(around, moved[-1][:, None, None], 0)[..., None]
        read.append(subject.read(np.clip(brighter, 0, 1).astype(np.float32)))
        own.append(subject.read(np.where(around[..., None], edit, base.images)))
    return tuple((forth - back) / 2 for forth, back in (moved, read, own))


def outside_square(row: int, column: int) -> np.ndarray:
    """The background of a square with that corner of its border, bool [64, 64]."""
    mask = np.ones((IMAGE_SIZE, IMAGE_SIZE), bool)
    mask[row : row + SIDE, column : column + SIDE] = False
    return mask


def _within(truth: Interval, effect: Interval) -> bool:
    return effect["low"] is not None and effect["low"] <= truth["mean"] <= effect["high"]


def _write_images(workdir: Path, chosen: np.ndarray, random: int) -> None:
    """The squares as PNG files with their targets, and the table of attributes."""
    squares, draws = Squares("validation"), np.random.default_rng(0)
    make_folder(workdir / "images")
    targets, attributes = [["name", "target"]], [["name", *SHOWN]]
    attributes[0] += [f"random {k + 1}" for k in range(random)]
    for i in map(int, chosen):
        name = squares.names[i]
        write_file(workdir / "images" / name, encode_png(squares.images[i]))
        targets.append([name, squares.target(i)])
        attributes.append([name, *squares.latents[i], *draws.standard_normal(random)])
    for path, rows in (
        (workdir / "images" / "data.csv", targets),
        (workdir / "attributes.csv", attributes),
    ):
        buffer = io.StringIO()
        csv.writer(buffer, lineterminator="\n").writerows(rows)
        write_file(path, buffer.getvalue().encode())


def draw(found: Mapping[str, Any]) -> "Figure":
    """Draw the effect of every direction on both regressors, and the truth."""
    figure = new_figure(8.5, 0.22 * len(found["planted"]["rows"]) + 1)
    places = figure.subplots(1, 2)
    for place, name in zip(places, ("planted", "clean"), strict=True):
        rows = found[name]["rows"][::-1]
        for i, row in enumerate(rows):
            effect, flagged = row["effect"], row["verdict"] == "flagged"
            colour = "tab:red" if flagged else "0.5"
            place.plot([effect["low"], effect["high"]], [i, i], color=colour, lw=1.5)
            place.plot(effect["mean"], i, "o", ms=4, color=colour)
            if name == "planted" and row["name"] == PLANTED:
                truth = found["planted"]["truth"]["mean"]
                place.plot(truth, i, "x", ms=7, color="k", label="real change")
                place.legend(fontsize=7, frameon=False, loc="lower right")
        place.axvline(0, color="0.7", lw=0.8)
        place.set_yticks(range(len(rows)), [row["name"] for row in rows], fontsize=7)
        place.tick_params(axis="x", labelsize=7)
        place.set_title(f"{name}: {len(found[name]['flagged'])} of {len(rows)} flagged", fontsize=9)
        place.set_xlabel("change of the prediction by a step", fontsize=8)
    return figure


def _define(values: flags.FlagValues) -> None:
    cli.define_path(values, "workdir", "The folder for runs and figures.")
    flags.DEFINE_string(
        "planted", "squares_planted", "A network of train/squares_planted.", flag_values=values
    )
    flags.DEFINE_integer("images", 96, "Squares to explain.", 16, flag_values=values)
    flags.DEFINE_integer("random", 8, "Columns of random numbers.", 0, flag_values=values)
    flags.DEFINE_integer("shams", 1, "See diffcf audit.", 1, flag_values=values)


def _benchmark(args: flags.FlagValues, _: list[str]) -> None:
    found = benchmark(args.workdir, args.planted, args.images, args.random, args.shams)
    for name in ("planted", "clean"):
        flagged = ", ".join(found[name]["flagged"]) or "nothing"
        print(f"{name}: flags {flagged}; {found[name]['share']:.0%} of all directions")
    planted = found["planted"]
    row = next(row for row in planted["rows"] if row["name"] == PLANTED)
    print(
        f"the background made {planted['moved']['mean']:.3f} brighter really changes the "
        f"prediction by {_text(planted['truth'])}; the audit's edit by {_text(row['effect'])}, its "
        f"background alone by {_text(planted['alone'])}"
    )


def _text(interval: Interval) -> str:
    return f"{interval['mean']:.3f} ({interval['low']:.3f} to {interval['high']:.3f})"


main = cli.Command(
    program="python -m eval.audit.planted",
    about="Audits a regressor with a planted spurious feature, and a clean one.",
    run=_benchmark,
    define=_define,
    required=("workdir",),
)

if __name__ == "__main__":
    sys.exit(main())
