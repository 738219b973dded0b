"""The latent DPM of a Diff-AE: learns which codes z_sem occur; in three sizes: tiny, small, paper.

It draws realistic codes, and with its Diff-AE images out of nothing (diffcf_jax.sampling). Give the
images that the Diff-AE was trained on:

python train.py --config configs/train/latent_dpm.py:tiny --workdir runs/latent_dpm \
    --config.objective.diffae=runs/diffae/network --config.data.path=IMAGES

tiny takes minutes on two CPU cores; paper is Diff-AE's ffhq256_autoenc_latent: 101 million codes
in batches of 256.
"""

import ml_collections

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
    if variant not in SIZES:
        raise ValueError(f"unknown size '{variant}': use tiny, small or paper")
    chosen = SIZES[variant]
    config = ml_collections.ConfigDict()
    config.seed = 1
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
    # name: "squares", "celeba-hq", "imdb-wiki" or "labelled" (a folder; labels are of no use here).
    config.data = dict(name="labelled", path="", labels="", held_out=0.1)
    config.steps = chosen["steps"]
    config.batch_size = chosen["batch_size"]
    config.accumulate = 1
    config.precision = "float32"
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
    config.log_every = 100
    config.evaluate_every = 1_000
    config.save_every = 1_000
    return config
