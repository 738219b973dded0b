r"""Explains and measures with other values of a config's keys, one key at a time.

    diffcf ablate --config squares_acre --workdir ablation --config.data.limit=64 \
        --sweep "method.tau=1,3,5,10; method.threshold=0.02,0.05"

makes one run per value in a folder of its own, measures it as `diffcf evaluate` does, and draws
what validity costs in sparsity and realism. The other keys keep the config's values. A run that is
complete is not made again, so the same command continues after an interruption and takes more
values.
"""

import ast
import copy
import functools
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_collections
from absl import flags

from diffcf_jax import cli, shipped
from diffcf_jax.errors import UserError
from diffcf_jax.files import inside

from ..metrics.evaluate import SUITES, evaluate
from ..metrics.metric import METRICS
from ..page import Finding, Plot, Table, format_finding, write_page

# What is drawn, where it was measured: validity first, then what it costs.
DRAWN = ("success_rate", "iterations", "oracle_error", "l1", "changed_area", "background_mae",
         "lpips", "fid", "fd_regressor")  # fmt: skip
_LOG_FROM = 20  # ratio of the largest value to the smallest


def parse_sweep(text: str) -> dict[str, list[str]]:
    """Reads "method.tau=1,3; seed=0,1".

    Raises:
        UserError: a part is no KEY=VALUE,VALUE,... or a key is there twice.
    """
    sweep: dict[str, list[str]] = {}
    for part in filter(str.strip, text.split(";")):
        key, equals, values = (piece.strip() for piece in part.partition("="))
        found = [value.strip() for value in values.split(",")]
        if not equals or not re.fullmatch(r"[\w.]+", key) or "" in found:
            raise UserError(
                f"--sweep has the part '{part.strip()}': write KEY=VALUE,VALUE, such as "
                "method.tau=1,3,5, and a semicolon between two keys."
            )
        if key in sweep or len(set(found)) < len(found):
            raise UserError(f"--sweep has {key}, or one of its values, twice: leave one out.")
        sweep[key] = found
    if not sweep:
        raise UserError("--sweep is empty: write KEY=VALUE,VALUE, such as method.tau=1,3,5.")
    return sweep


def with_value(config: ml_collections.ConfigDict, key: str, text: str) -> ml_collections.ConfigDict:
    """Returns a copy of the config in which one key has another value.

    Raises:
        UserError: the config has no such key, or the value is of another type.
    """
    now: Any = config
    for name in key.split("."):
        if not isinstance(now, ml_collections.ConfigDict) or name not in now:
            raise UserError(f"--sweep names {key}, and the config has no such key.")
        now = now[name]
    changed = copy.deepcopy(config)
    try:
        value = text if isinstance(now, str) else ast.literal_eval(text)
        changed.update_from_flattened_dict({key: value})
    except (TypeError, ValueError, SyntaxError):
        raise UserError(
            f"--sweep: {key}={text} does not fit, the config has {key}={now!r}: give values of "
            "that type."
        ) from None
    return changed


def ablate(
    config: ml_collections.ConfigDict, sweep: Mapping[str, Sequence[str]], workdir: Path, suite: str
) -> list[Finding]:
    """Runs and measures every value.

    Args:
        config: for explaining.
        sweep: see `parse_sweep`.
        workdir: gets a folder for each run.
        suite: of the metrics.

    Returns:
        One finding per key.

    Raises:
        UserError: whatever is wrong with a key, a value or the config; before the first run, as far
            as the config shows it.
    """
    from diffcf_jax.run import run

    configs = {
        (key, text): with_value(config, key, text) for key, texts in sweep.items() for text in texts
    }
    findings = []
    for key, texts in sweep.items():
        measured = []
        for text in texts:
            folder = inside(workdir, _folder(key, text))
            print(f"{key}={text}: {folder}", flush=True)
            run(folder, **configs[key, text].to_dict())
            measured.append(evaluate(folder, suite=suite)["metrics"])
        findings.append(_finding(key, texts, measured))
    return findings


def _folder(key: str, text: str) -> str:
    return re.sub(r"[^\w.=,+-]", "_", f"{key}={text}")


def _finding(key: str, texts: Sequence[str], measured: Sequence[Mapping[str, Any]]) -> Finding:
    """The metrics of all values of a key as a table and diagrams."""
    numbers = [_number(text) for text in texts]
    are_numbers = None not in numbers
    xs = numbers if are_numbers else list(range(len(texts)))
    log = are_numbers and min(xs) > 0 and max(xs) >= _LOG_FROM * min(xs)
    names = [name for name in measured[0] if all(name in metrics for metrics in measured)]
    rows = [
        {key: text, **{name: metrics[name]["mean"] for name in names}}
        for text, metrics in zip(texts, measured, strict=True)
    ]
    drawn = [name for name in DRAWN if name in names]
    plots = []
    for name in drawn:
        known = [
            (x, metrics[name])
            for x, metrics in zip(xs, measured, strict=True)
            if metrics[name]["mean"] is not None
        ]
        if known:
            bars = [(x, m["low"], m["high"]) for x, m in known if m["low"] is not None]
            title = f"{name} {METRICS[name].arrow if name in METRICS else ''}".strip()
            plots.append(
                Plot(title, {key: [(x, m["mean"]) for x, m in known]}, key, log=log,
                     names=() if are_numbers else texts, intervals={key: bars})
            )  # fmt: skip
    shown = [{key: row[key], **{name: row[name] for name in drawn}} for row in rows]
    text = (
        f"{measured[0]['success_rate']['n']} results per value; means with 95% intervals, by image."
    )
    return Finding(key.replace(".", "_"), key, text, Table(rows, shown), plots, {})


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _define(values: flags.FlagValues) -> None:
    cli.define_path(values, "workdir", "The folder for all runs and the page.")
    flags.DEFINE_string(
        "sweep", None, "KEY=VALUE,VALUE; KEY=VALUE,...: keys of the config without 'config.'.",
        flag_values=values,
    )  # fmt: skip
    flags.DEFINE_enum("suite", "paper", SUITES, "See diffcf evaluate.", flag_values=values)


def _ablate(args: flags.FlagValues, _: list[str]) -> None:
    findings = ablate(args.config, parse_sweep(args.sweep), args.workdir, args.suite)
    for finding in findings:
        print(format_finding(finding))
    page = write_page(args.workdir, "ablation", "Ablation", findings)
    print(f"The page is {page}")


main = cli.Command(
    program=functools.partial(shipped.command, "ablate"),
    about="Explains and measures with other values of a config's keys, one key at a time.",
    run=_ablate,
    define=_define,
    config="What to explain, and how.",
    required=("config", "workdir", "sweep"),
)

if __name__ == "__main__":
    sys.exit(main())
