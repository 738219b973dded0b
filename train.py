"""Trains a network: python train.py --config configs/train/squares_ddpm.py --workdir DIR."""

from pathlib import Path

from absl import flags
from ml_collections import config_flags

from diffcf_jax import cli
from diffcf_jax.training.loop import train

_CONFIG = config_flags.DEFINE_config_file("config", None, "What to train, and how.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Where checkpoints, metrics and pictures go.")
flags.mark_flags_as_required(["config", "workdir"])


def main(argv: list[str]) -> None:
    """Runs the training that the flags ask for."""
    workdir = Path(_WORKDIR.value)
    train(workdir, **_CONFIG.value.to_dict())
    print(f"The network is in {workdir / 'network'}")


if __name__ == "__main__":
    cli.run(main)
