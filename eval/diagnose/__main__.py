"""Diagnosis of a generator, to choose the methods' options by.

    diffcf diagnose --config squares_acre --workdir diagnosis_acre
    python -m eval.diagnose --config configs/squares_diffae.py --workdir diagnosis_diffae

takes a config for explaining, of which it uses generator, regressor, data and method, prints tables
and writes diagnosis.html (one file, opens offline), diagnosis.json and PNG pictures.

For a DDPM: what F_tau does to pixels and predictions for every tau. For a Diff-AE: the error of
reconstructions by the steps of inversion and decoding, whether z_sem or x_T carries the label, and
how codes are distributed.
"""

import functools
import sys

from absl import flags

from diffcf_jax import cli, shipped

from ..page import Finding, format_finding, write_page
from .diffae import Autoencoder, check_codes, check_steps, check_swap
from .subject import Subject, open_subject
from .tau import check_tau


def diagnose(subject: Subject) -> list[Finding]:
    """Runs the checks that fit the generator."""
    if subject.generator.kind == "ddpm":
        return [check_tau(subject)]
    autoencoder = Autoencoder(subject)
    return [check(subject, autoencoder) for check in (check_steps, check_swap, check_codes)]


def _define(values: flags.FlagValues) -> None:
    cli.define_path(values, "workdir", "The folder for the page and the pictures.")
    flags.DEFINE_integer(
        "images", 16, "How many images to look at.", lower_bound=2, flag_values=values
    )


def _diagnose(args: flags.FlagValues, _: list[str]) -> None:
    subject = open_subject(args.config.to_dict(), args.images)
    findings = diagnose(subject)
    for finding in findings:
        print(format_finding(finding))
    checkpoint = args.config.generator.checkpoint
    page = write_page(args.workdir, "diagnosis", f"Diagnosis of {checkpoint}", findings)
    print(f"The page is {page}")


main = cli.Command(
    program=functools.partial(shipped.command, "diagnose"),
    about="Measures a generator, to choose a method's options; prints tables, writes a page.",
    run=_diagnose,
    define=_define,
    config="A config for explaining, of which generator, regressor, data and method are used.",
    required=("config", "workdir"),
)

if __name__ == "__main__":
    sys.exit(main())
