"""The regressor of the squares: a ResNet of five blocks, half as wide as the paper's ResNet-18.

The label is the red value of the square alone. A regressor that is trained on the data as it is
learns "redder than grey" instead, and from the middle of the square: green, blue, the border and a
part of the square move it as well, and counterfactuals that use them say little about the label.
Patches of noise in green and blue teach it to look at red, and tiles of noise to weigh all of the
square alike.

A second training with random colours around the square (`distraction`) teaches it that the border
says nothing.

python train.py --config configs/train/squares_regressor.py --workdir runs/squares_regressor
python train.py --config configs/train/squares_regressor.py --workdir runs/squares_regressor_2 \
    --config.init=runs/squares_regressor/network --config.data.distraction=0.2 \
    --config.steps=4000 --config.optimizer.learning_rate=1e-3

The shipped network is that of the second. The two took 52 and 11 minutes on 2 cores that were busy
with other work besides; its mean absolute error on the validation squares is 0.018.
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    """Returns the config."""
    config = ml_collections.ConfigDict()
    config.seed = 1
    config.network = dict(
        kind="resnet",
        model=dict(width=32, blocks=(3, 1, 1), stem_kernel=4, stem_stride=2, stem_padding=1),
        image_size=64,
        unit=None,
        mean=0.0,
        scale=1.0,
    )
    config.objective = dict(adversarial=0.0, freeze_norm=False)
    config.data = dict(name="squares", distraction=0.0)
    config.init = ""  # a network directory to start from
    config.steps = 10_000
    config.batch_size = 64
    config.optimizer = dict(
        learning_rate=2e-3, warmup_steps=200, schedule="cosine", weight_decay=0.01, clip=1.0
    )
    config.ema_decay = 0.995
    config.augment = dict(flips=True, rolls=True, color_noise=(0.0, 0.3, 0.3), tile_noise=0.5)
    config.log_every = 50
    config.evaluate_every = 500
    config.save_every = 500
    return config
