"""The command: python -m eval.audit.planted --workdir DIR [--task faces]."""

import sys

from absl import flags

from diffcf_jax import cli
from diffcf_jax.results.statistics import Interval

from .benchmark import TASKS, benchmark


def _define(values: flags.FlagValues) -> None:
    cli.define_path(values, "workdir", "The folder for networks, runs and figures.")
    flags.DEFINE_enum("task", "squares", sorted(TASKS), "What is planted.", flag_values=values)
    flags.DEFINE_integer("images", 96, "Images to explain.", 16, flag_values=values)
    flags.DEFINE_integer("random", 8, "Columns of random numbers.", 0, flag_values=values)
    flags.DEFINE_integer("shams", 1, "See diffcf audit.", 1, flag_values=values)


def _benchmark(args: flags.FlagValues, _: list[str]) -> None:
    found = benchmark(args.workdir, args.task, args.images, args.random, args.shams)
    for name in ("planted", "clean"):
        for table, rows in (("with", found[name]), ("without", found[name]["blind"])):
            flagged = ", ".join(rows["flagged"]) or "nothing"
            share = f"{rows['share']:.0%} of all directions"
            print(f"{name}, {table} the table: flags {flagged}; {share}")
        row = found[name]["feature"]
        for key, truth in found[name]["truth"].items():
            print(
                f"{name}, {row['name']}: {key} really {_text(truth)}, by the audit "
                f"{_text(row[key]) if row[key] else 'unknown'}"
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
