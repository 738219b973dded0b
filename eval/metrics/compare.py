"""Compares measured runs: their metrics side by side, and their differences result by result.

    diffcf compare OUT1 OUT2 [OUT3 ...]

reads the metrics.json and metrics_of_results.csv that `diffcf evaluate` writes. Every other run is
compared with the first, on the results that both have: the mean difference with its interval, and
Wilcoxon's signed-rank test, both by image, with p-values adjusted by Holm over everything that is
compared.
"""

import csv
import functools
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from diffcf_jax import cli, shipped
from diffcf_jax.errors import UserError
from diffcf_jax.files import read_bytes
from diffcf_jax.report.evaluation import read_metrics
from diffcf_jax.results.statistics import holm, paired_difference

from .evaluate import RESULTS_CSV
from .metric import definition
from .regressor import READING

# (name of the image, target, answer) -> value
Column = dict[tuple[str, str, str], float]


def compare(folders: Sequence[str | Path]) -> list[dict[str, Any]]:
    """Compares runs with the first one.

    Returns:
        One row per other run and metric that both have: `run`, `metric`, and what
        `paired_difference` returns, with `p_holm`.

    Raises:
        UserError: a folder was not evaluated, its file is broken, or two runs share no result.
    """
    first, *others = [(str(folder), _read(Path(folder))) for folder in folders]
    rows: list[dict[str, Any]] = []
    for run, metrics in others:
        if not set(_results(first[1])) & set(_results(metrics)):
            raise UserError(
                f"{first[0]} and {run} have no image and target in common: compare runs of the "
                "same images and targets"
            )
        for name in first[1]:
            if name in metrics:
                a, b = first[1][name], metrics[name]
                image_of = {key: key[0] for key in a | b}
                rows.append({"run": run, "metric": name, **paired_difference(a, b, image_of)})
    for row, p in zip(rows, holm([row["p"] for row in rows]), strict=True):
        row["p_holm"] = p
    return rows


def side_by_side(folders: Sequence[str | Path]) -> dict[str, dict[str, float | None]]:
    """The means of all metrics, also those of whole sets, and of the controls.

    Returns:
        Column -> metric -> mean. A column is a run, or "RUN (attack)" where it has a control.

    Raises:
        UserError: a folder's metrics.json is missing or broken.
    """
    columns: dict[str, dict[str, float | None]] = {}
    for folder in map(str, folders):
        faults: list[str] = []
        metrics = read_metrics(Path(folder), faults)
        if metrics is None:
            raise UserError(faults[0] if faults else _missing(Path(folder) / "metrics.json"))
        for name, key in ((folder, "metrics"), (f"{folder} (attack)", "control")):
            if metrics[key]:
                columns[name] = {metric: x["mean"] for metric, x in metrics[key].items()}
    return columns


def format_means(columns: Mapping[str, Mapping[str, float | None]]) -> str:
    """One line per metric and one column per run, as Markdown; a dash where a run has none."""
    metrics = dict.fromkeys(name for column in columns.values() for name in column)
    first = max(len(name) for name in metrics) + 2
    head = f"| {'':<{first}} | {' | '.join(columns)} |"
    lines = [head, f"|{'-' * (first + 2)}|" + "---|" * len(columns)]
    for name in metrics:
        means = (column.get(name) for column in columns.values())
        cells = [
            f"{'-' if mean is None else f'{mean:.3g}':>{len(run)}}"
            for run, mean in zip(columns, means, strict=True)
        ]
        lines.append(f"| {_with_arrow(name):<{first}} | {' | '.join(cells)} |")
    return "\n".join(lines)


def format_comparison(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as a table of text; an arrow shows which way is better."""
    width = max(10, *(len(row["metric"]) + 3 for row in rows))
    lines = []
    run = None
    for row in rows:
        if row["run"] != run:
            run = row["run"]
            head = f"{'difference':>12}   {'95% interval':<24}{'n':>6}{'p':>10}{'p (Holm)':>10}"
            lines += ["", f"{run} minus the first", f"{'metric':<{width}}{head}"]
        line = f"{_with_arrow(row['metric']):<{width}}"
        if row["mean"] is None:
            lines.append(f"{line}{'-':>12}   {'-':<24}{0:>6}")
            continue
        between = f"{row['low']:.4f} to {row['high']:.4f}"
        chance = "".join(f"{row[key]:>10.2g}" for key in ("p", "p_holm"))
        lines.append(f"{line}{row['mean']:>12.4f}   {between:<24}{row['n']:>6}{chance}")
    return "\n".join(lines[1:])


def _read(folder: Path) -> dict[str, Column]:
    path = folder / RESULTS_CSV
    if not path.is_file():
        raise UserError(_missing(path))
    try:
        head, *rows = csv.reader(read_bytes(path).decode().splitlines())
        if head[:3] != ["name", "target", "answer"]:
            raise ValueError
        return {
            metric: {
                (row[0], row[1], row[2]): float(row[column] or "nan")
                for row in rows
                if math.isfinite(float(row[column] or "nan"))
            }
            for column, metric in enumerate(head)
            if column > 2 and not metric.endswith(READING)
        }
    except (ValueError, IndexError, UnicodeDecodeError, csv.Error):
        raise UserError(
            f"{path} is broken: run {shipped.command('evaluate')} --results {folder} again"
        ) from None


def _with_arrow(name: str) -> str:
    metric = definition(name)
    return f"{name} {metric.arrow if metric else ' '}"


def _missing(path: Path) -> str:
    return f"{path} is missing: run {shipped.command('evaluate')} --results {path.parent}"


def _results(metrics: Mapping[str, Column]) -> set[tuple[str, str, str]]:
    return set().union(*metrics.values())


def _compare(args: flags.FlagValues, arguments: list[str]) -> None:
    rows = compare(arguments)
    print(format_means(side_by_side(arguments)), format_comparison(rows), sep="\n\n")


main = cli.Command(
    program=functools.partial(shipped.command, "compare"),
    about="Shows measured runs side by side and compares them with the first, image by image.",
    run=_compare,
    define=lambda values: None,
    arguments=("OUT", "OTHER", "..."),
)

if __name__ == "__main__":
    sys.exit(main())
