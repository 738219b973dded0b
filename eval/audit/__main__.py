"""Finds what else a regressor reads: directions of z_sem that move it and no oracle.

    diffcf audit OUT --attributes attributes.csv [--weights DIR] [--oracles A,B]
    python -m eval.audit OUT                                          (the same in a clone)

OUT is the folder of a finished run of Diff-AE-RE or the hybrid. Directions come from the
attributes, from the counterfactuals and from the regressor's gradient; the effect of each is
measured on images that had no part in it, beside random edits of the same size and the oracles.
Writes OUT/audit/audit.html, audit.json, audit.csv and a picture of each direction.
"""

import functools
import sys

from absl import flags

from diffcf_jax import cli, shipped
from diffcf_jax.report.html import write_report

from .audit import FOLDER, audit
from .verdict import VERDICTS


def _define(values: flags.FlagValues) -> None:
    cli.define_path(
        values, "attributes", "A CSV file, name,attribute,...: a row of numbers per image."
    )
    flags.DEFINE_integer(
        "clusters", 4, "Directions from the counterfactuals, at most.", 1, flag_values=values
    )
    flags.DEFINE_float(
        "step", 1.0, "Of an edit, in standard deviations of the codes.", 0.0, flag_values=values
    )
    flags.DEFINE_integer(
        "shams", 2, "Random directions per image and direction.", 1, flag_values=values
    )
    flags.DEFINE_float(
        "smallest", None, "Smallest effect of interest; without it, the run's threshold.", 0.0,
        flag_values=values,
    )  # fmt: skip
    flags.DEFINE_integer("limit", None, "Only the first images.", 1, flag_values=values)
    cli.define_path(values, "weights", "A folder with the network identity.")
    cli.define_path(values, "generator", "A Diff-AE; without it, the one in the run's config.")
    cli.define_path(values, "regressor", "A regressor; without it, the one in the run's config.")
    cli.define_path(
        values, "oracle", "A regressor; without it, the one in the run's config, if any."
    )
    flags.DEFINE_string(
        "oracles", None, "More of them, a,b; without it, those in the run's config.",
        flag_values=values,
    )  # fmt: skip


def _audit(args: flags.FlagValues, arguments: list[str]) -> None:
    (folder,) = arguments
    names = ("clusters", "step", "shams", "smallest", "limit", "generator", "regressor", "oracle",
             "oracles", "weights")  # fmt: skip
    found = audit(folder, args.attributes, **{name: args[name].value for name in names})
    for row in found["directions"]:
        print(f"{row['name']} ({VERDICTS[row['verdict']]})\n    {row['sentence']}")
    for text in found["unsaid"]:
        print(f"note: {text}")
    report = write_report(folder)
    print(
        f"written: {folder}/{FOLDER}/audit.html, audit.json and audit.csv; {report.name} links it"
    )


main = cli.Command(
    program=functools.partial(shipped.command, "audit"),
    about="Finds directions of z_sem that move the regressor, and whether an oracle follows.",
    run=_audit,
    define=_define,
    arguments=("OUT",),
)

if __name__ == "__main__":
    sys.exit(main())
