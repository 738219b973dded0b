"""Whether counterfactuals repeat images that the generator was trained on.

A generator that remembers its training images pulls others towards them. The originals, which it
has not seen, say how near an image of the same kind is to the training images anyway.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np

from diffcf_jax.data.folder import list_images
from diffcf_jax.data.image import load_image

from .batch import BATCH_SIZE, Features, Measure, remembering
from .distances import squared_distances

_PART = BATCH_SIZE  # training images at a time, which bounds the memory
_SHARE = 0.05


def load_training_images(folder: Path, size: int) -> np.ndarray:
    """Returns all images of a folder, cut to squares and resized, uint8 [N, size, size, 3].

    Raises:
        UserError: there is no such folder, or an image in it is broken.
    """
    names = list_images(folder, "train")
    return np.stack([load_image(folder / name, size, convert=True) for name in names])


def nearest_in_pixels(training: np.ndarray) -> Measure:
    """`train_l2`, the least `l2` of x' and a training image or its mirror image, and that of x.

    Args:
        training: uint8 [N, H, W, 3].
    """

    def vectors(images: np.ndarray) -> np.ndarray:
        flat = images.reshape(len(images), -1)
        return flat / np.sqrt(flat.shape[1])  # distances are roots of means

    def parts() -> Iterable[np.ndarray]:
        for start in range(0, len(training), _PART):
            part = training[start : start + _PART] / np.float32(255)
            yield vectors(part)
            yield vectors(part[:, :, ::-1])

    return _measure("train_l2", vectors, parts)


def nearest_to_dlib(training: np.ndarray, features: Features) -> Measure:
    """`train_dlib`, the least distance of dlib's embeddings of x' and a training image, and of x.

    Args:
        training: uint8 [N, H, W, 3].
        features: the embeddings.
    """
    parts = [
        features(training[start : start + _PART] / np.float32(255))
        for start in range(0, len(training), _PART)
    ]
    return _measure("train_dlib", features, lambda: parts)


def _measure(name: str, vectors: Features, parts: Callable[[], Iterable[np.ndarray]]) -> Measure:
    @remembering
    def least(images: np.ndarray) -> np.ndarray:
        x = vectors(images)
        squared = np.min([squared_distances(x, part).min(axis=1) for part in parts()], axis=0)
        return np.sqrt(squared).astype(np.float32)

    return lambda batch, _: {name: least(batch.images), f"{name}_input": least(batch.inputs)}


def too_near(values: Mapping[str, np.ndarray]) -> dict[str, float]:
    """`train_l2_share` and `train_dlib_share`, where the distances have been measured.

    The share of x' that are nearer to a training image than all but 5% of the x are: 0.05 where
    the counterfactuals are as far from them as the originals, more where they repeat them.
    """
    return {
        f"{name}_share": float(np.mean(x < np.quantile(values[f"{name}_input"], _SHARE)))
        for name, x in values.items()
        if name in ("train_l2", "train_dlib")
    }


def in_words(shares: Mapping[str, float], originals: int) -> list[str]:
    """Says in sentences what the metrics `train_NAME_share` mean.

    A share is a sign of memorisation from two standard errors above 0.05 on; fewer originals than
    20 have no nearest twentieth, and nothing is said.

    Args:
        shares: metrics by name, other ones too.
        originals: how many different ones there are.
    """
    if originals < 1 / _SHARE:
        return []
    chance = _SHARE + 2 * math.sqrt(_SHARE * (1 - _SHARE) / originals)
    places = {"train_l2_share": "in pixels", "train_dlib_share": "to dlib's network"}
    return [
        f"{shares[name]:.1%} of the counterfactuals are nearer to a training image ({place}) than "
        f"all but {_SHARE:.0%} of the originals: {'a' if shares[name] > chance else 'no'} sign "
        "that the generator repeats its training images"
        for name, place in places.items()
        if name in shares
    ]
