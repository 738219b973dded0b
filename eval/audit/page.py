"""audit.html: the directions of an audit on one self-contained page, the most suspicious first."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffcf_jax.jsonfile import strict_json
from diffcf_jax.report.figures import ticks
from diffcf_jax.report.html import as_script
from diffcf_jax.report.numbers import digits_of, percent, with_unit
from diffcf_jax.report.pictures import colours, encode
from diffcf_jax.report.template import render

from .sheet import Sheet
from .verdict import VERDICTS

_FOLDER = Path(__file__).parent
_SIDE = 128  # of a thumbnail
_SOURCES = {
    "attribute": "attribute of the table",
    "counterfactuals": "cluster of the counterfactuals' changes",
    "gradient": "the regressor's gradient",
}


def audit_page(folder: Path, found: Mapping[str, Any], sheets: Mapping[str, Sheet]) -> str:
    """The page of what `audit` has found, with the sheet of each direction by its name."""
    rows = found["directions"]
    unit = found["unit"]
    digits = digits_of([row["effect"]["mean"] for row in rows] + [found["smallest"]])

    def number(value: float | None) -> str:
        return "–" if value is None else f"{value:z.{digits}f}".replace("-", "−")

    def between(interval: Mapping[str, Any], text: Any = number) -> str:
        if interval["low"] is None:
            return ""
        return f"{text(interval['low'])} to {text(interval['high'])}"

    return render(
        _FOLDER, "audit", ("core", "verdicts", "audit"), ("report", "audit"),
        title=f"Audit · {folder.resolve().name}",
        answer=answer(rows, found["oracles"]),
        found=found, rows=rows, verdicts=VERDICTS, sources=_SOURCES,
        sheets={name: _pictures(sheet) for name, sheet in sheets.items()},
        plots={row["name"]: plot(row) for row in rows},
        axis=axis(rows), number=number, between=between,
        percent=lambda share: percent(share).replace("-", "−"),
        value=lambda value: "–" if value is None else with_unit(number(value), unit),
        plain=lambda value: "–" if value is None else f"{value:.3g}".replace("-", "−"),
        data=as_script({
            "cases": [_case(row) for row in rows], "images": [], "unit": unit, "digits": digits,
            "run": folder.resolve().name,
            "digest": hashlib.sha256(strict_json(found).encode()).hexdigest()[:16],
        }),
    )  # fmt: skip


def answer(rows: Sequence[Mapping[str, Any]], oracles: Sequence[str]) -> str:
    """What was found, in a sentence."""
    count = {verdict: sum(row["verdict"] == verdict for row in rows) for verdict in VERDICTS}
    moving = len(rows) - count["still"]
    of = f"of {len(rows)} directions"
    if not moving:
        return f"None {of} moves the prediction."
    moves = f"{moving} {of} {'moves' if moving == 1 else 'move'} the prediction"
    if not oracles:
        return f"{moves}; there is no oracle to compare with."
    if count["flagged"]:
        others = "no oracle" if len(oracles) > 1 else "the oracle does not"
        return f"{moves}; {count['flagged']} of them {others} follow{'s' * (len(oracles) > 1)}."
    if count["disputed"]:
        return f"{moves}; about {count['disputed']} of them the oracles disagree."
    return f"{moves}, and {'an oracle' if len(oracles) > 1 else 'the oracle'} follows all of them."


def plot(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The intervals of a direction that are drawn below each other."""
    lines = [("regressor", "regressor", row["effect"])]
    lines += [("oracle", name, oracle["effect"]) for name, oracle in row["oracles"].items()]
    size = row["sham_size"]["mean"]
    lines.append(("sham", "random edits", {"mean": 0.0, "low": -size, "high": size}))
    return [{"kind": kind, "name": name, **interval} for kind, name, interval in lines]


def axis(rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """What the intervals of all directions are drawn along: `low`, `high` and `ticks`."""
    values = [
        line[key]
        for row in rows
        for line in plot(row)
        for key in ("mean", "low", "high")
        if line[key] is not None
    ]
    low, high = min(0.0, *values), max(0.0, *values)
    pad = 0.04 * (high - low or 1)
    low, high = low - pad, high + pad
    marks = ticks(low, high)  # 0 is one of them; every other one has room for its number
    return {"low": low, "high": high, "ticks": marks[marks.index(0) % 2 :: 2]}


def _case(row: Mapping[str, Any]) -> dict[str, Any]:
    """What an exported verdict says of its direction."""
    gaps = {name: oracle["gap"]["mean"] for name, oracle in row["oracles"].items()}
    effect = row["effect"]["mean"]
    return {"id": row["name"], "source": row["source"], "effect": effect, "gaps": gaps,
            "by_rule": row["verdict"]}  # fmt: skip


def _pictures(sheet: Sheet) -> dict[str, Any]:
    """The images of a sheet as data URIs, with the predictions."""
    rows = [
        {
            "name": name,
            "pictures": [encode(_bytes(image), _SIDE) for image in images],
            "y": sheet.y[name].tolist(),
        }
        for name, images in sheet.rows.items()
    ]
    changes = [colours(d, sheet.scale) for d in sheet.changes]
    return {"names": sheet.names, "rows": rows, "changes": changes, "scale": sheet.scale}


def _bytes(image: np.ndarray) -> np.ndarray:
    return np.rint(255 * image).astype(np.uint8)
