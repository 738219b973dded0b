"""Inputs and results made up of random numbers."""

import types

import numpy as np

from diffcf_jax.data.record import Record


def make_record(id=0, name="a.png", mask=None):
    image = np.random.default_rng(id).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Record(id=id, name=name, image=image, y=0.25, target=0.75, mask=mask)


def make_counterfactual(seed=0, **changes):
    random = np.random.default_rng(1000 + seed)
    values = {
        "image": (random.integers(0, 256, (8, 8, 3)) / 255).astype(np.float32),
        "reconstruction": random.random((8, 8, 3), np.float32),
        "y_initial": np.float32(0.1),
        "y_reconstruction": np.float32(0.2),
        "y_final": np.float32(0.7),
        "success": np.bool_(True),
        "iterations": np.int32(3),
        "curve": np.array([0.2, 0.5, 0.7, np.nan, np.nan], np.float32),
        "codes": None,
    }
    return types.SimpleNamespace(**{**values, **changes})
