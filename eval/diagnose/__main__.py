"""Diagnosis of a generator, to choose the methods' options by.

    python -m eval.diagnose --config configs/squares_acre.py --workdir diagnosis_acre
    python -m eval.diagnose --config configs/squares_diffae.py --workdir diagnosis_diffae

takes a config of explain.py, of which it uses generator, regressor, data and method, prints tables
and writes diagnosis.html (one file, opens offline), diagnosis.json and PNG pictures.

For a DDPM: what F_tau does to pixels and predictions for every tau. For a Diff-AE: the error of
reconstructions by the steps of inversion and decoding, whether z_sem or x_T carries the label, and
how codes are distributed.
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from diffcf_jax import cli

from .diffae import Autoencoder, check_codes, check_steps, check_swap
from .page import Finding, format_finding, write_page
from .subject import Subject, open_subject
from .tau import check_tau

_CONFIG = config_flags.DEFINE_config_file("config", None, "A config of explain.py.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Where the page and the pictures go.")
_IMAGES = flags.DEFINE_integer("images", 16, "How many images to look at.", lower_bound=2)


def diagnose(subject: Subject) -> list[Finding]:
    """Runs the checks that fit the generator."""
    if subject.generator.kind == "ddpm":
        return [check_tau(subject)]
    autoencoder = Autoencoder(subject)
    return [check(subject, autoencoder) for check in (check_steps, check_swap, check_codes)]


def main(_: Sequence[str]) -> None:
    """Diagnoses what the flags name."""
    subject = open_subject(_CONFIG.value.to_dict(), _IMAGES.value)
    findings = diagnose(subject)
    for finding in findings:
        print(format_finding(finding))
    checkpoint = _CONFIG.value.generator.checkpoint
    page = write_page(Path(_WORKDIR.value), f"Diagnosis of {checkpoint}", findings)
    print(f"The page is {page}")


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "workdir"])
    cli.run(main)
