"""The Diff-AE of the squares: encoder and conditional UNet at a quarter of the resolution.

Patches of 4x4 pixels are folded into channels, which makes it cheap enough for a laptop. It
predicts v instead of noise, which teaches it what z_sem says about colours much earlier. The
square is one pixel in 64 and its colour next to nothing in the mean over all; `scales` compares
whole areas too, and `weighting` counts most where there is much noise, so that z_sem learns the
square's place and colour within a few thousand updates.

The shipped network took 58 minutes on 2 cores that were busy with other work besides.

python train.py --config configs/train/squares_diffae.py --workdir runs/squares_diffae
"""

import ml_collections

from diffcf_jax.configs import common


def get_config() -> ml_collections.ConfigDict:
    """Returns the config."""
    config = common.training(seed=1, batch_size=32)
    config.network = dict(
        kind="diffae",
        model=dict(
            unet=dict(
                channels=64,
                channel_mult=(1, 1),
                num_res_blocks=1,
                attention_downsampling=(),
                num_heads=1,
                out_channels=3,
                emb_channels=256,
                resblock_updown=False,
                conv_resample=False,
                patch_size=4,
            ),
            encoder=dict(
                z_channels=512,
                channels=64,
                channel_mult=(1, 1, 2, 2),
                num_res_blocks=1,
                attention_downsampling=(),
                num_heads=1,
                resblock_updown=False,
                conv_resample=False,
                patch_size=4,
            ),
        ),
        diffusion=dict(steps=1000, schedule="linear", predict="v", variance="fixed_large"),
        image_size=64,
    )
    config.objective = dict(decode_steps=10, weighting="noise", scales=(1, 2, 4, 8))
    config.data = dict(name="squares")
    config.steps = 8_000
    config.optimizer = dict(
        learning_rate=1e-3, warmup_steps=200, schedule="cosine", weight_decay=0.0, clip=1.0
    )
    config.augment = dict(flips=True, rolls=False)
    # A regressor's network directory adds the Fréchet distance on its features.
    config.evaluation = dict(images=256, regressor="")
    return config
