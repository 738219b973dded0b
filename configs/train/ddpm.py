"""A DDPM of your own images, for AC-RE; in three sizes: tiny (the default), small and paper.

python train.py --config configs/train/ddpm.py:tiny --workdir runs/ddpm --config.data.path=IMAGES
python train.py --config configs/train/ddpm.py:paper --workdir runs/celeba_ddpm \
    --config.data.name=celeba-hq --config.data.path=CelebAMask-HQ

tiny is for images of 28 to 64 pixels (multiples of 4, from 48 on of 8) on two CPU cores, small for
128 pixels on one GPU. paper is the network of ACE for CelebA-HQ, of which the length of the
training and the batch are not known. No labels are needed. `IMAGES` may hold images of any size;
they become `config.image_size`.
"""

import ml_collections

from diffcf_jax.configs import common


def get_config(variant: str = "tiny") -> ml_collections.ConfigDict:
    """Returns the config of a size."""
    common.check_size(variant)
    config = common.training(seed=1, batch_size=32)
    config.image_size = {"tiny": 64, "small": 128, "paper": 256}[variant]
    config.data = common.labelled_images()  # the labels are of no use here
    config.network = dict(
        kind="ddpm",
        model=MODELS[variant],
        diffusion=dict(steps=1000, schedule="linear", predict="eps", variance="learned_range"),
    )
    # AC-RE with tau = 5 of 50 respaced steps asks for timesteps up to 82.
    config.objective = dict(max_timestep=ml_collections.config_dict.placeholder(int))
    config.augment = dict(
        mirror=True,  # left to right; False where that changes what is shown
        geometric=0.0,  # for few images 0.12: see docs/training.md
    )
    config.precision = "bfloat16"
    config.workers = 8
    config.ema_decay = 0.9999
    config.optimizer = dict(
        learning_rate=1e-4, warmup_steps=1_000, schedule="constant", weight_decay=0.0, clip=1.0
    )
    if variant == "tiny":
        config.network.model.patch_size = common.fold_patches(config)
        config.objective.max_timestep = 200  # what AC-RE needs is learned sooner alone
        config.precision = "float32"
        config.workers = 0
        config.ema_decay = 0.999
        config.optimizer = dict(
            learning_rate=1e-3, warmup_steps=200, schedule="cosine", weight_decay=0.0, clip=1.0
        )
    elif variant == "paper":
        config.network.diffusion.steps = 500
    config.steps = {"tiny": 5_000, "small": 200_000, "paper": 500_000}[variant]
    # A regressor's network directory adds the Fréchet distance on its features.
    config.evaluation = dict(images=256, regressor="")
    log = {"tiny": 50, "small": 100, "paper": 100}[variant]
    common.log_and_save(config, log, {"tiny": 500, "small": 5_000, "paper": 10_000}[variant])
    return config


MODELS = {
    "tiny": dict(
        channels=64,
        channel_mult=(1, 1),
        num_res_blocks=1,
        attention_downsampling=(),
        num_heads=4,
        out_channels=6,
        resblock_updown=False,
        conv_resample=False,
        dropout=0.0,
    ),
    "small": dict(
        channels=128,
        channel_mult=(1, 1, 2, 3, 4),
        num_res_blocks=1,
        attention_downsampling=(8, 16),
        num_head_channels=64,
        out_channels=6,
        dropout=0.0,
    ),
    "paper": dict(
        channels=128,
        channel_mult=(1, 1, 2, 2, 4, 4),
        num_res_blocks=2,
        attention_downsampling=(8, 16, 32),
        num_head_channels=64,
        out_channels=6,
        dropout=0.0,
    ),
}
