"""A Diff-AE of your own images, for Diff-AE-RE; in three sizes: tiny (the default), small, paper.

python train.py --config configs/train/diffae.py:tiny --workdir runs/diffae \
    --config.data.path=IMAGES

tiny is for images of 28 to 64 pixels (multiples of 4, from 48 on of 8) on two CPU cores, small for
128 pixels on one GPU. paper is Diff-AE's ffhq256_autoenc: 200 million images in batches of 64. No
labels are needed. `IMAGES` may hold images of any size; they become `config.image_size`.
"""

import ml_collections

from diffcf_jax.configs import common


def get_config(variant: str = "tiny") -> ml_collections.ConfigDict:
    """Returns the config of a size."""
    common.check_size(variant)
    config = common.training(seed=1, batch_size=32 if variant == "tiny" else 64)
    config.image_size = {"tiny": 64, "small": 128, "paper": 256}[variant]
    config.data = common.labelled_images()  # the labels are of no use here
    config.network = dict(
        kind="diffae",
        model=MODELS[variant],
        diffusion=dict(steps=1000, schedule="linear", predict="eps", variance="fixed_large"),
    )
    # weighting="noise" and scales=(1, 2, 4, 8) teach z_sem small areas, see docs/training.md.
    config.objective = dict(decode_steps=10, weighting="uniform", scales=(1,))
    config.augment = dict(
        mirror=True,  # left to right; False where that changes what is shown
        geometric=0.0,  # for few images 0.12: see docs/training.md
    )
    config.precision = "bfloat16"
    config.workers = 8
    config.ema_decay = 0.9999
    config.optimizer = dict(
        learning_rate=1e-4, warmup_steps=0, schedule="constant", weight_decay=0.0, clip=1.0
    )
    if variant == "tiny":
        patch_size = common.fold_patches(config)
        config.network.model.unet.patch_size = patch_size
        config.network.model.encoder.patch_size = patch_size
        # v instead of noise: what z_sem says about colours is learned much sooner.
        config.network.diffusion.predict = "v"
        config.precision = "float32"
        config.workers = 0
        config.ema_decay = 0.999
        config.optimizer = dict(
            learning_rate=1e-3, warmup_steps=200, schedule="cosine", weight_decay=0.0, clip=1.0
        )
    config.steps = {"tiny": 5_000, "small": 200_000, "paper": 200_000_000 // 64}[variant]
    # A regressor's network directory adds the Fréchet distance on its features.
    config.evaluation = dict(images=256, regressor="")
    log = {"tiny": 50, "small": 100, "paper": 100}[variant]
    common.log_and_save(config, log, {"tiny": 500, "small": 5_000, "paper": 20_000}[variant])
    return config


def _model(unet: dict, encoder: dict, **shared) -> dict:
    return dict(
        unet=dict(out_channels=3, **shared, **unet),
        encoder=dict(z_channels=512, **shared, **encoder),
    )


MODELS = {
    "tiny": _model(
        unet=dict(channel_mult=(1, 1), emb_channels=256, dropout=0.0),
        encoder=dict(channel_mult=(1, 1, 2)),
        channels=64,
        num_res_blocks=1,
        attention_downsampling=(),
        num_heads=1,
        resblock_updown=False,
        conv_resample=False,
    ),
    "small": _model(
        unet=dict(channel_mult=(1, 1, 2, 3, 4), emb_channels=512, dropout=0.1),
        encoder=dict(channel_mult=(1, 1, 2, 3, 4, 4)),
        channels=64,
        num_res_blocks=2,
        attention_downsampling=(8,),
        num_heads=1,
    ),
    "paper": _model(
        unet=dict(channel_mult=(1, 1, 2, 2, 4, 4), emb_channels=512, dropout=0.1),
        encoder=dict(channel_mult=(1, 1, 2, 2, 4, 4, 4)),
        channels=128,
        num_res_blocks=2,
        attention_downsampling=(16,),
        num_heads=1,
    ),
}
