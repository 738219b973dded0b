"""Compares measured runs, result by result.

    diffcf compare OUT1 OUT2 [OUT3 ...]

reads the metrics_of_results.csv that `diffcf evaluate` writes and compares every other run with the
first, on the results that both have: the mean difference with its interval, and Wilcoxon's
signed-rank test, both by image, with p-values adjusted by Holm over everything that is compared.
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
from diffcf_jax.results.statistics import holm, paired_difference

from .evaluate import RESULTS_CSV
from .metric import METRICS
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
        arrow = METRICS[row["metric"]].arrow if row["metric"] in METRICS else " "
        line = f"{row['metric'] + ' ' + arrow:<{width}}"
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
        raise UserError(f"{path} is missing: run {shipped.command('evaluate')} --results {folder}")
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


def _results(metrics: Mapping[str, Column]) -> set[tuple[str, str, str]]:
    return set().union(*metrics.values())


def _compare(args: flags.FlagValues, arguments: list[str]) -> None:
    print(format_comparison(compare(arguments)))


main = cli.Command(
    program=functools.partial(shipped.command, "compare"),
    about="Compares measured runs with the first one, image by image.",
    run=_compare,
    define=lambda values: None,
    arguments=("OUT", "OTHER", "..."),
)

if __name__ == "__main__":
    sys.exit(main())
