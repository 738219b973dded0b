"""The cases of the report: what the page's script knows of each result."""

import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from diffcf_jax.errors import UserError
from diffcf_jax.files import read_image
from diffcf_jax.report.pictures import (
    Album,
    Change,
    colours,
    load,
    outline,
    scale_of,
    thumbnail_side,
)
from diffcf_jax.results.log import IMAGES, Key, image_path, key_of, order_of
from diffcf_jax.results.summary import miss
from diffcf_jax.target import ends

Row = Mapping[str, Any]  # as in results.jsonl, without an error

_THIRD = "reconstruction"
_MOST_RECONSTRUCTIONS = 1000  # results; the page of more goes without these pictures
_KNOWN = {
    *("id", "name", "target", "answer", "unit", "y_true", "y_initial", "y_reconstruction"),
    *("y_final", "success", "iterations", "reason", "pixel_change", "seconds", "curve"),
    *("readings", "codes", "latent_change", *IMAGES),
}
_NO_CHANGE = "An image is missing or of another size: no change to show."
_MOST_GROUPS = 50  # values of a column that a page offers as a filter


def worst_first(row: Row) -> tuple[Any, ...]:
    """What rows are sorted by: failures first, those farthest from their target before others."""
    far = miss(row["y_final"], row["target"])
    failed = bool(ends(row["target"])) and not row["success"]
    return not failed, -(float("inf") if far is None else far) if failed else 0, order_of(row)


def identifiers(rows: Sequence[Row]) -> list[str]:
    """A name for each result to link to: the image's, with target and answer where it has more."""
    names = [row["name"] for row in rows]
    targets = {name: set() for name in names}
    for row in rows:
        targets[row["name"]].add(row["target"])
    several = any(row["answer"] > 1 for row in rows)
    return [
        row["name"]
        + (f"@{row['target']}" if len(targets[row["name"]]) > 1 else "")
        + (f"~{row['answer']}" if several else "")
        for row in rows
    ]


def further_columns(rows: Sequence[Row]) -> tuple[list[str], list[str]]:
    """The further keys of the rows that have plain values.

    Returns:
        Those that can be filtered by, which have few values, and those with many numbers.
    """
    keys = dict.fromkeys(key for row in rows for key in row if key not in _KNOWN)
    few, many = [], []
    for key in keys:
        values = {row.get(key) for row in rows if _is_plain(row.get(key))}
        if not all(_is_plain(row.get(key)) for row in rows):
            continue
        if len(values) <= _MOST_GROUPS:
            few.append(key)
        elif not any(isinstance(value, str) for value in values):
            many.append(key)
    return few, many


def _is_plain(value: Any) -> bool:
    return type(value) in (str, int, bool, type(None)) or (
        type(value) is float and math.isfinite(value)
    )


@dataclasses.dataclass(frozen=True)
class Cases:
    """All that the page shows of its results.

    Attributes:
        items: one for each result, in the order of the page.
        changes: how each image changed; None where an image is missing.
        images: of `Album`, which `items` name by their numbers.
        scale: the change in full colour.
        faults: what could not be read, one sentence each.
    """

    items: list[dict[str, Any]]
    changes: list[Change | None]
    images: list[dict[str, Any]]
    scale: float
    faults: list[str]


def make_cases(
    folder: Path, rows: Sequence[Row], values: Mapping[Key, Mapping[str, float | None]]
) -> Cases:
    """Read and sum up what the page shows of each result.

    Args:
        folder: of the results.
        rows: in the order of the page.
        values: metrics of each result, by `key_of`.
    """
    side = thumbnail_side(len(rows))
    groups, numbers = further_columns(rows)
    keys = ("input", "cf") if len(rows) > _MOST_RECONSTRUCTIONS else ("input", "cf", _THIRD)
    album, items, changes, faults = Album(), [], [], []
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        all_loaded = threads.map(lambda row: load(folder, row, keys, side), rows)
        for row, id, loaded in zip(rows, identifiers(rows), all_loaded, strict=True):
            pictures = {key: album.add(loaded.images.get(key)) for key in keys}
            items.append(_item(row, id, loaded.change, pictures))
            items[-1]["metrics"] = {
                name: value if value is None else _short(value)
                for name, value in values.get(key_of(row), {}).items()
            }
            items[-1]["metrics"] |= {key: row.get(key) for key in numbers}
            items[-1]["groups"] = {key: row.get(key) for key in groups}
            changes.append(loaded.change)
            faults += loaded.faults
    scale = scale_of(change.map for change in changes if change)
    masks: dict[str, int | None] = {}
    for row, item, change in zip(rows, items, changes, strict=True):
        if change:
            item["pictures"]["heatmap"] = album.add(colours(change.map, scale))
        key = "mask" if row["mask"] else "square_mask"  # what the user set, else the squares
        if path := row[key]:
            if path not in masks:
                masks[path] = album.add(_outline(folder, row, key, faults))
            item["pictures"]["mask"] = masks[path]
    return Cases(items, changes, album.images, scale, list(dict.fromkeys(faults)))


def _item(
    row: Row, id: str, change: Change | None, pictures: dict[str, int | None]
) -> dict[str, Any]:
    goal = ends(row["target"])
    return {
        "id": id, **{key: row[key] for key in ("name", "target", "answer", "reason")},
        "goal": goal, "success": row["success"] if goal else None,
        "true": row["y_true"], "before": row["y_initial"], "after": row["y_final"],
        "reconstruction": row["y_reconstruction"],
        "distance": miss(row["y_final"], row["target"]),
        "iterations": row["iterations"], "seconds": row["seconds"],
        "change": row["pixel_change"], "area": change and change.area,
        "words": change.words() if change else _NO_CHANGE,
        "curve": [None if y is None else _short(y) for y in row["curve"]],
        "readings": row.get("readings", {}), "pictures": pictures,
        "files": {key: row[key] for key, i in pictures.items() if i is not None},
    }  # fmt: skip


def _outline(folder: Path, row: Row, key: str, faults: list[str]) -> dict[str, Any] | None:
    try:
        mask = read_image(image_path(folder, row, key))
    except UserError as error:
        faults.append(str(error))
        return None
    return outline(mask) if mask.ndim == 2 else None


def _short(value: float) -> float:
    return float(f"{value:.5g}")
