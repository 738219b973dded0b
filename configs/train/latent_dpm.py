"""The latent DPM of a Diff-AE: learns which codes z_sem occur; in three sizes: tiny, small, paper.

It draws realistic codes, and with its Diff-AE images out of nothing (diffcf_jax.sampling). Give the
images that the Diff-AE was trained on:

python train.py --config configs/train/latent_dpm.py:tiny --workdir runs/latent_dpm \
    --config.objective.diffae=runs/diffae/network --config.data.path=IMAGES

tiny takes minutes on two CPU cores; paper is Diff-AE's ffhq256_autoenc_latent: 101 million codes
in batches of 256.
"""

import ml_collections

from diffcf_jax.configs import common

SIZES = {
    "tiny": dict(hidden=256, layers=4, batch_size=128, steps=5_000, learning_rate=1e-3, ema=0.999),
    "small": dict(
        hidden=1024, layers=10, batch_size=256, steps=50_000, learning_rate=3e-4, ema=0.9995
    ),
    "paper": dict(
        hidden=2048,
        layers=10,
        batch_size=256,
        steps=101_000_000 // 256,
        learning_rate=1e-4,
        ema=0.9999,
    ),
}


def get_config(variant: str = "tiny") -> ml_collections.ConfigDict:
    """Returns the config of a size."""
    common.check_size(variant)
    chosen = SIZES[variant]
    config = common.training(seed=1, batch_size=chosen["batch_size"])
    config.network = dict(
        kind="latent_dpm",
        model=dict(hidden=chosen["hidden"], layers=chosen["layers"]),
        diffusion=dict(steps=1000, schedule="const0.008", predict="eps", variance="fixed_large"),
    )
    config.objective = dict(
        diffae="",  # its network directory
        loss_type="l1",
        sample_steps=20,
        decode_steps=20,
    )
    config.data = common.labelled_images()  # the labels are of no use here; or name="squares"
    config.steps = chosen["steps"]
    config.workers = 0
    config.optimizer = dict(
        learning_rate=chosen["learning_rate"],
        warmup_steps=0,
        schedule="constant",
        weight_decay=0.01,
        clip=1.0,
    )
    config.ema_decay = chosen["ema"]
    config.augment = dict()
    config.evaluation = dict(images=256, regressor="")
    common.log_and_save(config, log=100, save=1_000)
    return config
