"""Data sets: the squares of the paper, and any folder of images."""

from diffcf_jax.data.folder import ImageFolder, load_image
from diffcf_jax.data.record import Record
from diffcf_jax.data.squares import Squares

__all__ = ["ImageFolder", "Record", "Squares", "load_image"]
