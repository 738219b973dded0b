"""Explains images: python explain.py --config configs/squares_diffae.py --workdir OUT."""

import sys

from diffcf_jax.main import explain

if __name__ == "__main__":
    sys.exit(explain())
