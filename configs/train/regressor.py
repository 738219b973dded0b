"""A regressor of your own labels; in three sizes: tiny (the default), small and paper.

python train.py --config configs/train/regressor.py:tiny --workdir runs/regressor \
    --config.data.path=IMAGES --config.data.labels=labels.csv

`labels.csv` has the header `name,y` and a line for every image in the folder `IMAGES`, with a
number in any unit. The images may be of any size; they become `config.image_size`. tiny is for
images of 28 to 64 pixels on two CPU cores, small for 128 pixels on one GPU. paper is the paper's
DenseNet-121; for the paper's way of training it, see imdb_wiki_regressor.py.
"""

import ml_collections

from diffcf_jax.configs import common


def get_config(variant: str = "tiny") -> ml_collections.ConfigDict:
    """Returns the config of a size."""
    common.check_size(variant)
    config = common.training(seed=1, batch_size=32 if variant == "paper" else 64)
    config.image_size = {"tiny": 64, "small": 128, "paper": 256}[variant]
    config.data = common.labelled_images()
    config.network = dict(
        kind="densenet" if variant == "paper" else "resnet",
        model=MODELS[variant],
        # The network predicts (y - mean) / scale; by default they are those of the labels.
        unit=ml_collections.config_dict.placeholder(str),  # such as years, for reports
        mean=ml_collections.config_dict.placeholder(float),
        scale=ml_collections.config_dict.placeholder(float),
    )
    # Trained on images that are changed by up to `adversarial` in each pixel, a regressor looks at
    # what is shown instead of at textures that nobody sees.
    config.objective = dict(
        loss_type="mse",  # or "l1": the median instead of the mean
        adversarial=0.0 if variant == "paper" else 4 / 255,
        freeze_features=False,
        freeze_norm=False,  # True in a second training: more precise
    )
    config.augment = dict(mirror=True)  # left to right; False where that changes the label
    config.precision = "bfloat16"
    config.workers = 8
    if variant == "paper":
        config.optimizer = dict(
            learning_rate=1e-4, warmup_steps=0, schedule="constant", weight_decay=0.01
        )
    else:
        config.optimizer = dict(
            learning_rate=2e-3, warmup_steps=200, schedule="cosine", weight_decay=0.01, clip=1.0
        )
    if variant == "tiny":
        config.precision = "float32"
        config.workers = 0
        config.ema_decay = 0.995
    config.steps = {"tiny": 4_000, "small": 20_000, "paper": 120_000}[variant]
    log = {"tiny": 50, "small": 100, "paper": 100}[variant]
    common.log_and_save(config, log, {"tiny": 500, "small": 1_000, "paper": 6_000}[variant])
    return config


MODELS = {
    "tiny": dict(width=32, blocks=(1, 1, 1), stem_kernel=4, stem_stride=2, stem_padding=1),
    "small": dict(width=64, blocks=(2, 2, 2, 2), stem_kernel=7, stem_stride=2, stem_padding=3),
    "paper": dict(growth=32, blocks=(6, 12, 24, 16), init_features=64),
}
