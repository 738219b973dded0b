"""report.html: the results of a run on one self-contained page.

The page needs no network and no other file: images are data URIs, style and script are inline. It
also comes where files are missing or broken, and says so.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from diffcf_jax.errors import UserError
from diffcf_jax.files import read_image, write_file
from diffcf_jax.jsonfile import strict_json
from diffcf_jax.report.cases import make_cases, worst_first
from diffcf_jax.report.columns import add_attributes
from diffcf_jax.report.evaluation import read_metrics, read_values, table
from diffcf_jax.report.figures import overview_svg
from diffcf_jax.report.headline import answer, control, failures, notes, worst
from diffcf_jax.report.numbers import digits_of, duration, with_unit
from diffcf_jax.report.pictures import Change, average_maps
from diffcf_jax.report.reproduction import again, config_file
from diffcf_jax.report.template import render
from diffcf_jax.results.answers import pairwise_distances, together
from diffcf_jax.results.log import RESULTS, Key, image_path, key_of, order_of, read_results
from diffcf_jax.results.summary import miss, read_summary, summarise
from diffcf_jax.shipped import command
from diffcf_jax.target import Range, ends
from diffcf_jax.units import label_range
from diffcf_jax.workdir import read_config

Row = Mapping[str, Any]  # as in results.jsonl

_FOLDER = Path(__file__).parent
_SCRIPTS = ("core", "chart", "compare", "case", "cases", "verdicts", "judge", "start")
_STYLES = ("report", "case", "cases")
_AUDIT = "audit/audit.html"  # where `diffcf audit` leaves its page
_METHODS = {"ac-re": "AC-RE", "diffae-re": "Diff-AE-RE", "hybrid": "Hybrid"}


def write_report(workdir: str | Path, limit: int = 3000) -> Path:
    """Writes OUT/report.html from results.jsonl, summary.json, metrics.json and the saved images.

    The title is made of the method's name and the folder's; `config.method.threshold` is the
    band of success in the figures, and `config.regressor.unit` the unit of all predictions. What
    is missing or broken, except for results.jsonl itself, is left out and named on the page.

    Args:
        workdir: OUT, the folder of an explain.py run.
        limit: the page shows at most this many results, failures first; it says how many are
            left out.

    Raises:
        UserError: there is no results.jsonl, or the folder cannot be written.
    """
    folder = Path(workdir)
    faults: list[str] = []
    rows = sorted(_read_rows(folder, faults), key=order_of)
    results = sorted((row for row in rows if "error" not in row), key=worst_first)
    summary = _read_summary(folder, rows, faults)
    config, intervals = summary["config"], summary["metrics"]
    name, threshold = str(config["method"].get("name", "")), config["method"]["threshold"]
    unit = (config.get("regressor") or {}).get("unit")
    metrics = read_metrics(folder, faults)
    labels = _labels(config, faults)
    digits = digits_of(
        value
        for row in results
        for value in (row["y_initial"], row["y_final"], *(ends(row["target"]) or ()))
    )
    shown = results[:limit]
    values = read_values(folder, faults)
    cases = make_cases(folder, add_attributes(folder, shown, faults), values)
    numbers = {id(row): i for i, row in enumerate(shown)}
    hashes = _hashes(folder, faults)
    faults = list(dict.fromkeys(faults + cases.faults))
    band = with_unit(f"±{threshold:g}", unit)

    def number(value: float | str | None) -> str:
        if value is None or isinstance(value, str):  # a target
            return value or "–"
        return f"{value:z.{digits}f}"

    def image(row: Row, key: str) -> dict[str, Any] | None:
        place = cases.items[numbers[id(row)]]["pictures"].get(key)
        return None if place is None else cases.images[place]

    page = render(
        _FOLDER, "report", _SCRIPTS, _STYLES,
        title=f"{_METHODS.get(name, name)} · {folder.resolve().name}",
        answer=answer(results, _success(intervals, metrics), _oracles(metrics), threshold, unit),
        control=control(metrics["control"]) if metrics else "",
        failures=failures(results, summary["reasons"], len(rows) - len(results), unit),
        notes=notes(results, faults, labels),
        oracle_command=None if _oracles(metrics) else f"{command('evaluate')} --results {folder}",
        duration=duration(summary["wall_seconds"]),
        device=summary["versions"].get("device"),
        overview=overview_svg(results, threshold, unit, numbers),
        worst=worst(shown, _oracle_errors(shown, values), threshold),
        place_of=lambda row: numbers[id(row)],
        off=lambda row: None if row["success"] else miss(row["y_final"], row["target"]),
        band=band, n=len(results), n_shown=len(shown), log=RESULTS, unit=unit,
        maps=_maps(shown, cases.changes),
        metrics=table(intervals, metrics, band, digits),
        evaluated=metrics,
        groups=[(group, _distances(folder, group)) for group in together(shown)],
        image=image,
        number=number,
        value=lambda value: "–" if value is None else with_unit(number(value), unit),
        errors=[row for row in rows if "error" in row],
        versions=summary["versions"], seed=config.get("seed"),
        hashes=hashes, again=again(config), config_file=config_file(config),
        audit=_AUDIT if (folder / _AUDIT).is_file() else None,
        data=as_script({
            "cases": cases.items, "images": cases.images, "scale": cases.scale, "unit": unit,
            "threshold": threshold, "digits": digits, "run": folder.resolve().name,
            "digest": hashlib.sha256(strict_json(results).encode()).hexdigest()[:16],
            **{
                kind: list(dict.fromkeys(key for case in cases.items for key in case[kind]))
                for kind in ("metrics", "readings", "groups")
            },
        }),
    )  # fmt: skip
    path = folder / "report.html"
    write_file(path, page.encode())
    return path


def _read_rows(folder: Path, faults: list[str]) -> list[dict[str, Any]]:
    try:
        return read_results(folder)
    except UserError as error:
        rows = read_results(folder, skip_broken=True)  # raises if there is no such file
        faults.append(str(error))
        return rows


def _read_summary(folder: Path, rows: Sequence[Row], faults: list[str]) -> dict[str, Any]:
    """The sums of the rows, with what else summary.json says; without it, with the config."""
    try:
        summary = read_summary(folder)
        seconds, versions = summary["wall_seconds"], summary["versions"]
        return summarise(rows, summary["config"], seconds, versions)  # a log may have been edited
    except UserError as error:
        faults.append(str(error))
    try:
        config = read_config(folder) or {}
    except UserError as error:
        faults.append(str(error))
        config = {}
    method, regressor = config.get("method"), config.get("regressor")
    method = dict(method) if isinstance(method, Mapping) else {}
    if type(method.get("threshold")) not in (int, float):
        faults.append("The threshold of success is not known: bands have no width.")
        method["threshold"] = 0.0
    regressor = regressor if isinstance(regressor, Mapping) else {}
    unit = regressor.get("unit")
    regressor = {**regressor, "unit": unit if isinstance(unit, str) else None}
    return summarise(rows, {**config, "method": method, "regressor": regressor}, 0.0, {})


def _labels(config: Mapping[str, Any], faults: list[str]) -> Range | None:
    try:
        return label_range({}, config.get("regressor") or {})
    except (UserError, TypeError, AttributeError) as error:
        faults.append(str(error))
        return None


def _hashes(folder: Path, faults: list[str]) -> Mapping[str, Any]:
    """Digests of the networks, as config.json has them."""
    try:
        networks = (read_config(folder) or {}).get("networks")
    except UserError as error:
        faults.append(str(error))
        return {}
    return networks if isinstance(networks, Mapping) else {}


def _success(intervals: Mapping[str, Any], metrics: Mapping[str, Any] | None) -> Any:
    """As the table of metrics has it, unless the run has gone on since the evaluation."""
    found, measured = intervals["success_rate"], (metrics or {}).get("metrics", {})
    judged = measured.get("success_rate", found)
    return judged if judged["n"] == found["n"] else found


def _oracles(metrics: Mapping[str, Any] | None) -> dict[str, Any]:
    """In how many results each oracle sees a success, by its name."""
    end = "_success_rate"
    found = metrics["metrics"] if metrics else {}
    return {name.removesuffix(end): x for name, x in found.items() if name.endswith(end)}


def _oracle_errors(rows: Sequence[Row], values: Mapping[Key, Any]) -> dict[int, float]:
    found = {id(row): values.get(key_of(row), {}).get("oracle_error") for row in rows}
    return {row: error for row, error in found.items() if error is not None}


def _maps(
    rows: Sequence[Row], changes: Sequence[Change | None]
) -> tuple[list[dict[str, Any]], float] | None:
    known = [
        (row["y_final"], change)
        for row, change in zip(rows, changes, strict=True)
        if change is not None and row["y_final"] is not None
    ]
    return average_maps(*zip(*known, strict=True)) if known else None


def _distances(folder: Path, group: Sequence[Row]) -> list[tuple[int, int, float]]:
    """The numbers of each two answers and the distance of their saved images, if all are there."""
    try:
        images = [read_image(image_path(folder, row, "cf")) for row in group]
    except UserError:  # which the page says already
        return []
    if any(image.shape != images[0].shape for image in images):
        return []
    return [
        (group[i]["answer"], group[j]["answer"], distance)
        for (i, j), distance in pairwise_distances(images).items()
    ]


def as_script(value: Mapping[str, Any]) -> Markup:
    """JSON that no HTML parser takes for a tag or a comment."""
    text = json.dumps(json.loads(strict_json(value)), separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e"))
