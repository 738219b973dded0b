"""Audits a results folder: directions, their effects, and what they mean, as numbers on disk."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tqdm

from diffcf_jax.errors import UserError
from diffcf_jax.files import encode_png, inside, make_folder, write_file
from diffcf_jax.jsonfile import strict_json
from diffcf_jax.regressors.readings import Oracles
from diffcf_jax.report.numbers import digits_of
from diffcf_jax.results.statistics import holm

from .attributes import Attribute, read_attributes
from .directions import Direction, from_attributes, from_counterfactuals, from_gradients
from .effects import measure, reconstruct, summarise, whole_effect
from .page import audit_page
from .reverse import kept, rchange, whole_changes
from .sheet import draw_sheet
from .subgroups import contrasts, counterfactual_regression
from .subject import REGRESSOR, Subject, image_names, open_subject
from .verdict import LEVEL, is_read, judge, moved_too, rank, sentence

FOLDER = "audit"


def audit(
    results: str | Path,
    attributes: str | Path | None = None,
    *,
    clusters: int = 4,
    step: float = 1.0,
    shams: int = 2,
    smallest: float | None = None,
    limit: int | None = None,
    generator: str | Path | None = None,
    regressor: str | Path | None = None,
    oracle: str | Path | None = None,
    oracles: Oracles | None = None,
    weights: str | Path | None = None,
) -> dict[str, Any]:
    """Audit a run of Diff-AE-RE or the hybrid; write audit.json, audit.csv, pictures and a page.

    Args:
        results: the folder; everything is written into its folder `audit`.
        attributes: a CSV file, see `read_attributes`; None: the user knows none.
        clusters: of the counterfactuals' changes, at most.
        step: in standard deviations of the codes along a direction.
        shams: random directions per image and direction, each followed both ways.
        smallest: effect of interest, in the label's unit; None: the method's threshold.
        limit: look at the first images only.
        generator: see `open_subject`.
        regressor: see `open_subject`.
        oracle: see `open_subject`.
        oracles: see `open_subject`.
        weights: see `open_subject`.

    Returns:
        What audit.json holds: `directions`, one dictionary per direction, those that are flagged
        first (see `effects.summarise`, `effects.whole_effect`, `verdict.judge`,
        `subgroups.contrasts` and `reverse.rchange`), `regression`, `unsaid` (sentences on what
        cannot be said), `kept`, `n`, `counterfactuals`, `unit`, `smallest`, `step`, `shams`,
        `identity` and the names of `oracles` and `attributes`.

    Raises:
        UserError: whatever is wrong with the folder, a network, the table or a number.
    """
    folder = Path(results)
    names = image_names(folder, limit)
    table = read_attributes(Path(attributes), names) if attributes else []
    subject = open_subject(
        folder, names, generator=generator, regressor=regressor, oracle=oracle, oracles=oracles,
        weights=weights,
    )  # fmt: skip
    smallest = subject.threshold if smallest is None else smallest
    directions, probes, unsaid = find_directions(subject, table, clusters)
    base = reconstruct(subject)
    _check_finite(base.y)
    encoded = subject.encode(base.images)
    whole = whole_changes(subject, base)
    rows, sheets = [], {}
    for number, direction in enumerate(tqdm.tqdm(directions, "directions", dynamic_ncols=True)):
        measured = measure(subject, base, direction, step, shams)
        _check_finite(measured.effect)
        _check_finite({REGRESSOR: measured.sham_size})
        row = {
            "name": direction.name,
            "source": direction.source,
            "facts": {**direction.facts, "agreement": direction.agreement},
            "size": step * float(direction.steps(subject.codes).mean()),
            **summarise(measured, subject, probes),
            "whole": None,
            "subgroups": contrasts(measured.effect[REGRESSOR], table),
            "rchange": rchange(subject, base, whole, direction),
        }
        if direction.source == "attribute" and is_read(row):
            (one,) = (attribute for attribute in table if attribute.name == direction.name)
            row["whole"] = whole_effect(measured, encoded, subject, probes[one.name], one)
        sheets[direction.name] = draw_sheet(subject, base, direction, step)
        row["picture"] = f"direction_{number}.png"
        rows.append(row)
    rows = conclude(rows, smallest, subject.unit)
    unsaid += limits(rows, subject, table)
    found = {
        "directions": rows,
        "regression": counterfactual_regression(subject, probes) if probes else None,
        "unsaid": unsaid,
        "kept": kept(subject, whole),
        "n": len(subject.names),
        "counterfactuals": len(subject.image_of),
        "unit": subject.unit,
        "smallest": smallest,
        "step": step,
        "shams": shams,
        "identity": subject.identity is not None,
        "oracles": subject.oracles,
        "attributes": [attribute.name for attribute in table],
        "seed": subject.seed,
    }
    _write(folder, found, sheets)
    return found


def find_directions(
    subject: Subject, table: Sequence[Attribute], clusters: int
) -> tuple[list[Direction], dict[str, Any], list[str]]:
    """All directions, the probes of the attributes, and what cannot be said."""
    named, probes, unsaid = from_attributes(subject.codes, subject.half, table)
    moved = from_counterfactuals(
        subject.changes, subject.after >= subject.before, subject.half[subject.image_of],
        clusters, subject.seed,
    )  # fmt: skip
    if not moved:
        unsaid.append(
            "One half of the images has no counterfactual that reached its target, so that the "
            "counterfactuals give no direction: audit more images."
        )
    gradients = subject.gradients()
    known = np.isfinite(gradients)
    steep = from_gradients(np.where(known, gradients, 0), subject.codes, subject.half)
    if not steep or not known.all():
        unsaid.append("The regressor's gradient is 0 or not finite at images of a half.")
    directions = [d for d in (*named, *moved, *steep) if d.steps(subject.codes).all()]
    if taken := {one.name for one in (*moved, *steep)} & {one.name for one in table}:
        raise UserError(
            f"The attribute {min(taken)} has the name of another direction: rename its column"
        )
    if not directions:
        raise UserError("The codes of the images do not differ: audit different images")
    return directions, probes, unsaid


def conclude(
    rows: Sequence[Mapping[str, Any]], smallest: float, unit: str | None
) -> list[dict[str, Any]]:
    """The rows with Holm's p-values, verdicts and sentences; the most suspicious first."""
    digits = digits_of([row["effect"]["mean"] for row in rows] + [smallest])
    adjusted = holm([row["effect"]["p"] for row in rows])
    concluded = []
    for row, p in zip(rows, adjusted, strict=True):
        row = {**row, "effect": {**row["effect"], "p_holm": p}}
        row["verdict"] = judge(row, smallest)
        row["sentence"] = sentence(row, smallest, unit, digits)
        row["moved_too"] = moved_too(row)
        concluded.append(row)
    return sorted(concluded, key=rank)


def audit_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """The text of audit.csv: one line per direction; what is not known is left empty."""
    lines = []
    for row in rows:
        line = {"direction": row["name"], "source": row["source"], "verdict": row["verdict"]}
        line |= _cells("effect", row["effect"])
        line |= {"p": row["effect"]["p"], "p_holm": row["effect"]["p_holm"]}
        line |= _cells("whole", row["whole"] or dict.fromkeys(("mean", "low", "high")))
        line |= {"sham_size": row["sham_size"]["mean"]}
        for name, oracle in row["oracles"].items():
            line |= _cells(f"{name}_effect", oracle["effect"]) | _cells(
                f"{name}_gap", oracle["gap"]
            )
        line |= {f"distance_{key}": value["mean"] for key, value in row["distance"].items()}
        line |= {f"moved_{name}": move["mean"] for name, move in row["moved"].items()}
        for key, ratio in row["rchange"].items():
            line |= _cells(key, ratio)
        lines.append(line | {"sentence": row["sentence"]})
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return buffer.getvalue()


def _cells(name: str, interval: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: interval["mean"], f"{name}_low": interval["low"], f"{name}_high": interval["high"]
    }  # fmt: skip


def limits(
    rows: Sequence[Mapping[str, Any]], subject: Subject, table: Sequence[Attribute]
) -> list[str]:
    """What the number of images and the networks at hand leave open."""
    found = []
    n = len(subject.names)
    least = 2.0 ** (1 - n) * len(rows)  # of Wilcoxon's test, times Holm's factor
    if least >= LEVEL:
        enough = math.floor(1 - math.log2(LEVEL / len(rows))) + 1
        found.append(
            f"With {n} images no direction can be significant after Holm's correction for "
            f"{len(rows)}: audit at least {enough} images."
        )
    if not subject.oracles:
        found.append(
            "There is no oracle, so that no direction can be called spurious: give --oracle or "
            "--oracles."
        )
    if not table:
        found.append(
            "No attributes were given, so that nothing is known of what else a direction changes, "
            "and there are no subgroups: give --attributes."
        )
    elif any(row["contrast"]["mean"] is None for one in rows for row in one["subgroups"]):
        found.append("Subgroups of less than 2 images cannot be compared.")
    return found


def _check_finite(y: Mapping[str, np.ndarray]) -> None:
    for name, values in y.items():
        if not np.isfinite(values).all():
            raise UserError(
                f"{name} predicts {values[~np.isfinite(values)][0]} for an edited image, which is "
                "no number to average: check the network"
            )


def _write(folder: Path, found: Mapping[str, Any], sheets: Mapping[str, Any]) -> None:
    make_folder(inside(folder, FOLDER))
    out = folder / FOLDER
    for row in found["directions"]:
        write_file(inside(out, row["picture"]), encode_png(sheets[row["name"]].grid()))
    write_file(out / "audit.json", (strict_json(found, indent=2) + "\n").encode())
    write_file(out / "audit.csv", audit_csv(found["directions"]).encode())
    write_file(out / "audit.html", audit_page(folder, found, sheets).encode())
