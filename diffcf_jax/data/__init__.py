"""Data sets: the squares of the paper, folders of images, CelebA-HQ and IMDB-WIKI-clean."""

from diffcf_jax.data.celeba_hq import CelebAHQ
from diffcf_jax.data.folder import ImageFolder
from diffcf_jax.data.image import load_image
from diffcf_jax.data.labelled import LabelledImages
from diffcf_jax.data.record import Record
from diffcf_jax.data.squares import Squares

__all__ = ["CelebAHQ", "ImageFolder", "LabelledImages", "Record", "Squares", "load_image"]
