"""The originals' file formats, read without PyTorch."""

from pathlib import Path

import numpy as np

from diffcf_jax.checkpoint.convert import import_network
from diffcf_jax.checkpoint.torch_reader import read_state_dict

from .golden import Golden

# Larger arrays are recorded by their sum, first and last value.
SUMMARISED = 2000


def check(golden: Golden) -> None:
    """Compares a folder of kind `checkpoint formats`."""
    for file in golden.config["files"]:
        state_dict = read_state_dict(golden.folder / file)
        prefix = Path(file).stem
        for key, array in state_dict.items():
            name = f"{prefix}|{key}"
            if name not in golden:
                golden.fail(name, "not in the original")
                continue
            if array.dtype.kind == "V" or array.dtype.name == "bfloat16":
                array = array.astype(np.float32)
            if array.size >= SUMMARISED:
                values = array.astype(np.float64).ravel()
                array = np.array([values.sum(), values[0], values[-1]])
                golden.compare_constants(name, array)
            else:
                golden.compare_exactly(name, array)
        if prefix == "unet" and "unet_flags" in golden.config:
            import_network("ddpm", state_dict, golden.config["unet_flags"], file)
