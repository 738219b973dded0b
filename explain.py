"""Explains images: python explain.py --config configs/squares_diffae.py --workdir OUT."""

from pathlib import Path

from absl import flags
from ml_collections import config_flags

from diffcf_jax import cli
from diffcf_jax.errors import UserError
from diffcf_jax.run import run

_CONFIG = config_flags.DEFINE_config_file("config", None, "What to explain, and how.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Where results, images and the report go.")
flags.mark_flags_as_required(["config", "workdir"])


def main(argv: list[str]) -> None:
    """Runs what the flags ask for."""
    report, errors = run(Path(_WORKDIR.value), **_CONFIG.value.to_dict())
    print(f"The report is {report.resolve()}")
    if errors:
        raise UserError(f"{len(errors)} images could not be explained; the first: {errors[0]}")


if __name__ == "__main__":
    cli.run(main)
