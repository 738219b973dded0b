"""Tiny networks that the tests train, save and explain with."""

import math
import zlib

import jax
import numpy as np

from diffcf_jax.checkpoint.network import abstract_variables
from diffcf_jax.checkpoint.store import save_network

SIZE = 64  # of the squares

UNET = {
    "channels": 32, "channel_mult": (1,), "num_res_blocks": 1, "attention_downsampling": (),
    "resblock_updown": False, "conv_resample": False, "patch_size": 8,
}  # fmt: skip
DDPM = {
    "kind": "ddpm",
    "model": {**UNET, "out_channels": 6},
    "diffusion": {"steps": 100},
    "image_size": SIZE,
}
DIFFAE = {
    "kind": "diffae",
    "model": {
        "unet": {**UNET, "out_channels": 3, "emb_channels": 32},
        "encoder": {
            "z_channels": 8, "channels": 32, "channel_mult": (1,), "num_res_blocks": 1,
            "attention_downsampling": (), "patch_size": 8,
        },
    },
    "diffusion": {"steps": 100, "predict": "v", "variance": "fixed_large"},
    "image_size": SIZE,
}  # fmt: skip
REGRESSOR = {
    "kind": "resnet",
    "model": {
        "width": 4, "blocks": (1,), "stem_kernel": 4, "stem_stride": 4, "stem_padding": 0,
    },
    "image_size": SIZE,
}  # fmt: skip


def variables(description, seed=0):
    """Returns random variables in which every layer has an effect, without compiling anything.

    Kernels are normal with variance 1 / fan-in, biases and running means are 0, scales and running
    variances are 1. The kernels that start at 0 in a real training (the last one of a residual or
    attention block and of a UNet) are a tenth as large as the others.
    """

    def draw(path, leaf):
        *_, layer, name = (entry.key for entry in path)
        if name != "kernel":
            return np.full(leaf.shape, name in ("scale", "var"), leaf.dtype)
        random = np.random.default_rng([seed, zlib.crc32(jax.tree_util.keystr(path).encode())])
        factor = 0.1 if layer in ("out_conv", "proj_out") else 1
        deviation = factor / math.sqrt(math.prod(leaf.shape[:-1]))
        return random.normal(0, deviation, leaf.shape).astype(leaf.dtype)

    drawn = jax.tree_util.tree_map_with_path(draw, abstract_variables(description))
    return jax.device_put(drawn)


def save(directory, description, seed=0):
    """Saves a network with random variables and returns its directory as text."""
    save_network(directory, description, variables(description, seed))
    return str(directory)
