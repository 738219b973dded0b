"""Trains a network: python train.py --config configs/train/squares_ddpm.py --workdir DIR."""

import sys

from diffcf_jax.main import train

if __name__ == "__main__":
    sys.exit(train())
