"""Diff-AE-RE of the ages of CelebA-HQ faces at 256 pixels (the paper's Table 2).

python explain.py --config configs/celeba_diffae.py --workdir out_faces \
    --config.data.path=CelebAMask-HQ
python explain.py --config configs/celeba_diffae.py --workdir out_own \
    --config.data.name=folder --config.data.path=FOLDER --config.targets=20,60

The first explains the test split with the paper's targets: 80 years for a face that is marked
Young, 10 for any other. The second takes any folder of 256 pixel faces and targets in years.
Without the checkpoints either command says where their originals are and how to convert them.

`method.inversion_steps` is the T of x -> x_T: 250 as the paper says; its code runs 20 whatever it
is asked for. The paper's batches of 4 weigh the distance 4 times as much as its lambda_d says;
here an image's result does not depend on its batch.

One image at a time takes 6.4 GiB of memory in all on a CPU, and an iteration 16.7 TFLOP.
"""

import ml_collections

from diffcf_jax import DiffAERE
from diffcf_jax.configs import common


def get_config() -> ml_collections.ConfigDict:
    """Returns the config."""
    config = common.explaining(
        data=dict(
            name="celeba-hq",
            attribute="Young",
            attribute_targets=(10.0, 80.0),  # years, for a face without and with the attribute
        ),
        batch_size="auto",
    )
    config.method = common.method(
        DiffAERE(
            threshold=5.0,  # years
            solver="adam",  # the paper's; "newton" needs a fraction of the iterations
            inversion_steps=250,
            distance="l1",
            distance_space="latent",
            distance_weight=1e-5,
            remat="step",
        )
    )
    config.generator = dict(
        checkpoint="checkpoints/ffhq256_diffae",
        original='last.ckpt of "DiffAE (autoencoding only): FFHQ256" in '
        "https://github.com/phizaz/diffae#checkpoints",
        convert="ffhq256_autoenc/last.ckpt --kind diffae --preset ffhq256",
    )
    config.regressor = common.AGE_REGRESSOR
    config.oracle = common.AGE_ORACLE  # only for evaluation
    return config
