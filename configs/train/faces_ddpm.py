"""The DDPM of faces: 64 px crops of 899 photographs, for AC-RE and the hybrid.

diffcf fetch faces
python train.py --config configs/train/faces_ddpm.py --workdir runs/faces_ddpm

It is `configs/train/ddpm.py:tiny` with more updates. The shipped network was stopped after 4,469 of
them.
"""

import ml_collections

from diffcf_jax.configs.train import ddpm


def get_config() -> ml_collections.ConfigDict:
    """Returns the config."""
    config = ddpm.get_config("tiny")
    config.data.path = "faces/train"
    config.steps = 8_000
    return config
