"""The Diff-AE of faces: 64 px crops of 899 photographs, for Diff-AE-RE and the hybrid.

diffcf fetch faces
python train.py --config configs/train/faces_diffae.py --workdir runs/faces_diffae

It is `configs/train/diffae.py:tiny`, but reaches down to 2x2 positions instead of 8x8: z_sem enters
every position of a level alike, so that only levels that see the whole face can place what it says.
The shipped network is the best one on held-out photographs, of update 3,500.
"""

import ml_collections

from diffcf_jax.configs.train import diffae


def get_config() -> ml_collections.ConfigDict:
    """Returns the config."""
    config = diffae.get_config("tiny")
    config.data.path = "faces/train"
    config.network.model.unet.channel_mult = (1, 1, 1, 1)
    config.network.model.encoder.channel_mult = (1, 1, 2, 2)
    config.steps = 4_500
    return config
