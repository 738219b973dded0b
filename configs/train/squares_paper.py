"""The squares at the paper's sizes, for a GPU: ddpm, diffae, regressor or oracle.

python train.py --config configs/train/squares_paper.py:ddpm --workdir runs/squares_paper_ddpm
python train.py --config configs/train/squares_paper.py:diffae --workdir runs/squares_paper_diffae
python train.py --config configs/train/squares_paper.py:regressor --workdir runs/squares_paper_reg
python train.py --config configs/train/squares_paper.py:oracle --workdir runs/squares_paper_oracle

The DDPM has the attack's UNet (101.7M parameters), the Diff-AE is Diff-AE's square64_autoenc
(90.8M), regressor and oracle are the ResNet-18 with a 4x4 stem; 16 million images for the Diff-AE
and 120,000 updates for the regressors are those of the originals.
"""

import ml_collections

from diffcf_jax.configs import common


def get_config(network: str = "") -> ml_collections.ConfigDict:
    """Returns the config of a network."""
    if network not in NETWORKS:
        raise ValueError(
            f"unknown network '{network}': use squares_paper.py:NAME with one of "
            f"{', '.join(NETWORKS)}"
        )
    config = common.training(
        seed=2 if network == "oracle" else 1, batch_size=24 if network == "diffae" else 32
    )
    config.data = dict(name="squares")
    config.network = dict(NETWORKS[network], image_size=64)
    config.objective = dict()
    config.augment = dict(flips=True)
    config.precision = "bfloat16"
    config.ema_decay = 0.9999
    if network in ("regressor", "oracle"):
        config.optimizer = dict(learning_rate=1e-5, schedule="constant", weight_decay=0.01)
    else:
        config.optimizer = dict(learning_rate=1e-4, schedule="constant", weight_decay=0.0, clip=1.0)
    config.steps = {"ddpm": 100_000, "diffae": 16_000_000 // 24}.get(network, 120_000)
    common.log_and_save(config, log=100, save=6_000)
    return config


_UNET = dict(num_res_blocks=2, resblock_updown=True)
_RESNET = dict(
    kind="resnet",
    model=dict(width=64, blocks=(2, 2, 2, 2), stem_kernel=4, stem_stride=1, stem_padding=2),
    mean=0.0,
    scale=1.0,
)

NETWORKS = {
    "ddpm": dict(
        kind="ddpm",
        model=dict(
            channels=128,
            channel_mult=(1, 2, 3, 4),
            attention_downsampling=(2, 4, 8),
            num_heads=4,
            out_channels=6,
            **_UNET,
        ),
        diffusion=dict(steps=1000, schedule="linear", predict="eps", variance="learned_range"),
    ),
    "diffae": dict(
        kind="diffae",
        model=dict(
            unet=dict(
                channels=64,
                channel_mult=(1, 2, 4, 8),
                attention_downsampling=(4,),
                num_heads=1,
                out_channels=3,
                emb_channels=512,
                dropout=0.1,
                **_UNET,
            ),
            encoder=dict(
                z_channels=512,
                channels=64,
                channel_mult=(1, 2, 4, 8, 8),
                attention_downsampling=(4,),
                num_heads=1,
                **_UNET,
            ),
        ),
        diffusion=dict(steps=1000, schedule="linear", predict="eps", variance="fixed_large"),
    ),
    "regressor": _RESNET,
    "oracle": _RESNET,
}
