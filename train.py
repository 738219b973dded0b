"""Trains a network: python train.py --config configs/train/squares_ddpm.py --workdir DIR."""

from pathlib import Path

from absl import flags
from ml_collections import config_flags

from diffcf_jax import cli, parallel
from diffcf_jax.training.config import TrainConfig
from diffcf_jax.training.loop import train

_CONFIG = config_flags.DEFINE_config_file("config", None, "What to train, and how.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Where checkpoints, metrics and pictures go.")
flags.mark_flags_as_required(["config", "workdir"])


def main(argv: list[str]) -> None:
    """Runs the training that the flags ask for.

    A run that is killed, or stopped by SIGTERM (exit status 75), continues when the same command
    is given again. The same command on every host of a pod or cluster shares the work.
    """
    cli.keep_memory()
    parallel.initialize()
    workdir, config = Path(_WORKDIR.value), _CONFIG.value.to_dict()
    summary = train(workdir, TrainConfig.from_dict(config))
    if parallel.process_index() == 0:
        print(summary)


if __name__ == "__main__":
    cli.run(main)
