"""The oracle of the squares: judges counterfactuals, is never optimised against.

A shallower network than the regressor from another seed, trained on clean images.

The shipped network took 16 minutes on 2 cores that were busy with other work besides; its mean
absolute error on the validation squares is 0.018.

python train.py --config configs/train/squares_oracle.py --workdir runs/squares_oracle
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    """Returns the config."""
    config = ml_collections.ConfigDict()
    config.seed = 2
    config.network = dict(
        kind="resnet",
        model=dict(width=32, blocks=(1, 1, 1), stem_kernel=4, stem_stride=2, stem_padding=1),
        image_size=64,
        unit=None,
        mean=0.0,
        scale=1.0,
    )
    config.objective = dict(adversarial=0.0)
    config.data = dict(name="squares")
    config.steps = 3_000
    config.batch_size = 64
    config.optimizer = dict(
        learning_rate=2e-3, warmup_steps=200, schedule="cosine", weight_decay=0.01, clip=1.0
    )
    config.ema_decay = 0.995
    config.augment = dict(flips=True, rolls=True)
    config.log_every = 50
    config.evaluate_every = 500
    config.save_every = 500
    return config
