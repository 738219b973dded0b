"""The cases of the report: what the page's script knows of each result."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from diffcf_jax.report.pictures import Album, Change, colours, outline, scale_of
from diffcf_jax.results.log import IMAGES, Key, key_of, order_of
from diffcf_jax.results.summary import miss
from diffcf_jax.target import ends

Row = Mapping[str, Any]  # as in results.jsonl, without an error

_COLOURS = ("input", "reconstruction", "cf")
_KNOWN = {
    *("id", "name", "target", "answer", "unit", "y_true", "y_initial", "y_reconstruction"),
    *("y_final", "success", "iterations", "reason", "pixel_change", "seconds", "curve"),
    *("readings", *IMAGES),
}
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
        + (f"@{_plain(row['target'])}" if len(targets[row["name"]]) > 1 else "")
        + (f"~{row['answer']}" if several else "")
        for row in rows
    ]


def group_columns(rows: Sequence[Row]) -> list[str]:
    """The further keys of results.jsonl by which its results can be told apart: texts, few."""
    keys = dict.fromkeys(key for row in rows for key in row if key not in _KNOWN)
    return [
        key
        for key in keys
        if all(type(row.get(key)) in (str, int, bool, type(None)) for row in rows)
        and len({row.get(key) for row in rows}) <= _MOST_GROUPS
    ]


def make_cases(
    rows: Sequence[Row], album: Album, values: Mapping[Key, Mapping[str, float | None]]
) -> tuple[list[dict[str, Any]], list[Change | None], float]:
    """All that the page shows of each result.

    Args:
        rows: in the order of the page.
        album: gets their images.
        values: metrics of each result, by `key_of`.

    Returns:
        The cases, how each image changed (None where an image is missing), and the change in
        full colour.
    """
    groups = group_columns(rows)
    cases, changes = [], []
    with ThreadPoolExecutor(4) as threads:
        loaded = threads.map(lambda row: {key: album.read(row, key) for key in _COLOURS}, rows)
        for row, id, images in zip(rows, identifiers(rows), loaded, strict=True):
            change = album.change(images["input"], images["cf"])
            pictures = {key: album.embed(row, key, images[key]) for key in _COLOURS}
            changes.append(change)
            cases.append({
                "id": id, **{key: row[key] for key in ("name", "target", "answer", "reason")},
                "goal": ends(row["target"]),
                "true": row["y_true"], "before": row["y_initial"], "after": row["y_final"],
                "reconstruction": row["y_reconstruction"],
                "distance": miss(row["y_final"], row["target"]),
                "success": row["success"] if ends(row["target"]) else None,
                "iterations": row["iterations"], "seconds": row["seconds"],
                "change": row["pixel_change"], "area": change and change.area,
                "place": change and change.place,
                "words": change.words() if change else "An image is missing: nothing to compare.",
                "curve": [None if y is None else _short(y) for y in row["curve"]],
                "readings": row.get("readings", {}),
                "metrics": {k: v if v is None else _short(v) for k, v in
                            values.get(key_of(row), {}).items()},
                "groups": {key: row.get(key) for key in groups},
                "pictures": pictures, "file": row["cf"],
            })  # fmt: skip
    scale = scale_of(change.map for change in changes if change)
    masks: dict[str, int | None] = {}
    for row, case, change in zip(rows, cases, changes, strict=True):
        if change:
            case["pictures"]["heatmap"] = album.add(colours(change.map, scale))
        if path := row["square_mask"]:
            if path not in masks:
                mask = album.read(row, "square_mask")
                whole = mask is not None and mask.ndim == 2
                masks[path] = album.add(outline(np.asarray(mask))) if whole else None
            case["pictures"]["mask"] = masks[path]
    return cases, changes, scale


def _plain(target: float | str) -> str:
    return target if isinstance(target, str) else f"{target:g}"


def _short(value: float) -> float:
    return float(f"{value:.5g}")
