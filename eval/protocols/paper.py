"""Reproduces a table of the paper: runs, measures, and prints both rows.

    diffcf paper --table 1 --workdir paper
    diffcf paper --table 2 --workdir paper --images CelebAMask-HQ --weights DIR

Table 1 needs nothing else: the squares and their networks come with the package. Table 2 needs the
data, the originals' checkpoints, converted (`diffcf explain --config celeba_acre` says how), and
the networks of `diffcf evaluate --weights`. What is complete in the workdir is not made again.
"""

import dataclasses
import functools
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import config_flags

from diffcf_jax import cli, shipped

from ..metrics.evaluate import evaluate
from ..metrics.metric import METRICS
from ..metrics.published import PUBLISHED, SCALE


@dataclasses.dataclass(frozen=True)
class PaperTable:
    """A table of the paper.

    Attributes:
        configs: method -> config.
        published: method -> metric -> the paper's value.
        scale: metric -> what our value is multiplied by, to be in the paper's unit.
    """

    configs: Mapping[str, str]
    published: Mapping[str, Mapping[str, float]]
    scale: Mapping[str, float] = dataclasses.field(default_factory=dict)


def _table(data: str, configs: Mapping[str, str]) -> PaperTable:
    rows = zip(configs, PUBLISHED[data].values(), strict=True)
    return PaperTable(configs, dict(rows), SCALE[data])


TABLES = {
    1: _table("squares", {"AC-RE": "squares_acre", "Diff-AE-RE": "squares_diffae"}),
    2: _table("celeba-hq", {"AC-RE": "celeba_acre", "Diff-AE-RE": "celeba_diffae"}),
}


def reproduce(
    table: PaperTable, workdir: Path, images: Path | None, weights: Path | None, limit: int | None
) -> dict[str, dict[str, Any]]:
    """Runs and measures every method of a table.

    Returns:
        Method -> metrics, as `evaluate` returns them.

    Raises:
        UserError: networks or data are missing.
    """
    from diffcf_jax.run import run

    found = {}
    for method, name in table.configs.items():
        config = _load(name)
        if images is not None:
            config["data"]["path"] = str(images)
        if limit is not None:
            config["data"]["limit"] = limit
        print(f"{method}: {workdir / name}", flush=True)
        run(workdir / name, **config)
        found[method] = evaluate(workdir / name, weights=weights)["metrics"]
    return found


def format_rows(table: PaperTable, found: Mapping[str, Mapping[str, Any]]) -> str:
    """The paper's rows and ours."""
    names = list(next(iter(table.published.values())))
    extra = ["success_rate", "oracle_error", "iterations"]
    width = max(15, *(len(name) + 4 for name in names + extra))
    head = [f"{name} {METRICS[name].arrow if name in METRICS else ''}" for name in names + extra]
    lines = [f"{'':<22}" + "".join(f"{text:>{width}}" for text in head)]
    for method, published in table.published.items():
        ours = found[method]
        cells = [f"{published[name]:.4g}" for name in names] + ["-"] * len(extra)
        lines.append(f"{method + ', paper':<22}" + "".join(f"{c:>{width}}" for c in cells))
        means = {name: _scaled(table, ours, name) for name in names + extra}
        cells = ["-" if x is None else f"{x:.4f}" for x in means.values()]
        lines.append(f"{method + ', here':<22}" + "".join(f"{c:>{width}}" for c in cells))
    counts = [ours["success_rate"]["n"] for ours in found.values()]
    lines.append(f"N = {', '.join(map(str, counts))}; a dash: not published, or not computed here.")
    return "\n".join(lines)


def _scaled(table: PaperTable, metrics: Mapping[str, Any], name: str) -> float | None:
    mean = metrics.get(name, {}).get("mean")
    return None if mean is None else mean * table.scale.get(name, 1.0)


def _load(name: str) -> dict[str, Any]:
    """A config that comes with the package."""
    values = flags.FlagValues()
    words = ["diffcf", f"--config={shipped.find_config(name)}"]
    config_flags.DEFINE_config_file("config", None, flag_values=values, sys_argv=words)
    values(words)
    return values.config.to_dict()


def _define(values: flags.FlagValues) -> None:
    flags.DEFINE_integer(
        "table", None, "1: squares; 2: ages of faces.", 1, len(TABLES), flag_values=values
    )
    cli.define_path(values, "workdir", "The folder for the runs.")
    cli.define_path(values, "images", "The folder of CelebAMask-HQ, for table 2.")
    cli.define_path(values, "weights", "A folder with the networks of further metrics.")
    flags.DEFINE_integer(
        "limit", None, "Explain only the first ones, to try it.", 1, flag_values=values
    )


def _paper(args: flags.FlagValues, _: Sequence[str]) -> None:
    table = TABLES[args.table]
    print(format_rows(table, reproduce(table, args.workdir, args.images, args.weights, args.limit)))


main = cli.Command(
    program=functools.partial(shipped.command, "paper"),
    about="Runs and measures what a table of the paper shows, and prints both.",
    run=_paper,
    define=_define,
    required=("table", "workdir"),
)

if __name__ == "__main__":
    sys.exit(main())
