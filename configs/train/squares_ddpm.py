"""The DDPM of the squares, for AC-RE: ADM's UNet at a quarter of the resolution.

Patches of 4x4 pixels are folded into channels, which makes it cheap enough for a laptop. AC-RE
asks for timesteps up to 82 of 1000 (tau = 5 of 50 respaced steps), so that only those are trained.

python train.py --config configs/train/squares_ddpm.py --workdir runs/squares_ddpm
python train.py --config configs/train/squares_ddpm.py --workdir runs/squares_ddpm_2 \
    --config.init=runs/squares_ddpm/network --config.objective.scales="(1,2,4,8)"

The second training compares the means of areas as well, so that F_tau keeps the square's colour.
The shipped network is that of the second, which took 12 minutes on 2 cores that were busy with
other work besides.
"""

import ml_collections

from diffcf_jax.configs import common


def get_config() -> ml_collections.ConfigDict:
    """Returns the config."""
    config = common.training(seed=1, batch_size=32)
    config.network = dict(
        kind="ddpm",
        model=dict(
            channels=64,
            channel_mult=(1, 1),
            num_res_blocks=1,
            attention_downsampling=(),
            num_heads=4,
            out_channels=6,
            resblock_updown=False,
            conv_resample=False,
            patch_size=4,
        ),
        diffusion=dict(steps=1000, schedule="linear", predict="eps", variance="learned_range"),
        image_size=64,
    )
    config.objective = dict(max_timestep=100, respacing="50", tau=5, scales=(1,))
    config.data = dict(name="squares")
    config.steps = 2_000
    config.optimizer = dict(
        learning_rate=1e-3, warmup_steps=200, schedule="cosine", weight_decay=0.0, clip=1.0
    )
    config.augment = dict(flips=True, rolls=False)
    # A regressor's network directory adds the Fréchet distance on its features.
    config.evaluation = dict(images=256, regressor="")
    return config
