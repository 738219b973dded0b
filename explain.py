"""Explains images: python explain.py --config configs/squares_diffae.py --workdir OUT."""

from pathlib import Path

import jax
from absl import flags
from ml_collections import config_flags

from diffcf_jax import cli, parallel
from diffcf_jax.errors import UserError
from diffcf_jax.run import run
from eval.aot import compile_for

_CONFIG = config_flags.DEFINE_config_file("config", None, "What to explain, and how.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Where results, images and the report go.")
_START_OVER = flags.DEFINE_bool(
    "start_over", False, "Remove the results that the workdir holds before anything else."
)
_COMPILE_ONLY = flags.DEFINE_bool(
    "compile_only", False, "Compile for --topology, print the expected memory and speed, and exit."
)
_TOPOLOGY = flags.DEFINE_string("topology", "v5e:2x4", "A TPU pod, such as v5e:16x16.")
flags.mark_flag_as_required("config")


def main(argv: list[str]) -> None:
    """Runs what the flags ask for.

    The same command on every host of a pod or cluster shares the work. A run that ends early, by
    SIGTERM or otherwise, continues when the same command is given again; SIGTERM exits with
    status 75 for that.
    """
    config = _CONFIG.value.to_dict()
    if _COMPILE_ONLY.value:
        # Without the chips, programs can be put into the cache but not taken from it.
        jax.config.update("jax_enable_compilation_cache", False)
        print(compile_for(_TOPOLOGY.value, **config))
        return
    if not _WORKDIR.value:
        raise UserError("Flag --workdir must have a value: the folder for results and report.")
    parallel.initialize()
    report, errors = run(Path(_WORKDIR.value), **config, from_scratch=_START_OVER.value)
    if parallel.process_index() == 0:
        print(f"The report is {report.resolve()}")
    if errors:
        raise UserError(f"{len(errors)} images could not be explained; the first: {errors[0]}")


if __name__ == "__main__":
    cli.run(main)
