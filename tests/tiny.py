"""Tiny networks that the tests train, save and explain with."""

import jax

from diffcf_jax.checkpoint.network import init_variables
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


def save(directory, description, seed=0):
    """Saves an initialised network and returns its directory as text."""
    save_network(directory, description, init_variables(description, jax.random.key(seed)))
    return str(directory)
