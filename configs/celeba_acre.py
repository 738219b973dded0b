"""AC-RE of the ages of CelebA-HQ faces at 256 pixels (the paper's Table 2).

python explain.py --config configs/celeba_acre.py --workdir out_faces \
    --config.data.path=CelebAMask-HQ
python explain.py --config configs/celeba_acre.py --workdir out_own \
    --config.data.name=folder --config.data.path=FOLDER --config.targets=20,60

The first explains the test split with the paper's targets: 80 years for a face that is marked
Young, 10 for any other. The second takes any folder of 256 pixel faces and targets in years.
Without the checkpoints either command says where their originals are and how to convert them.

One image at a time takes 6.0 GiB of memory in all on a CPU, and an iteration 8.5 TFLOP.
"""

import ml_collections

from diffcf_jax import ACRE
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
        ACRE(
            solver="pgd",  # the paper's; "newton" needs a fraction of the iterations
            gradient_floor=0.0,
            respacing="25",  # of the 500 timesteps
            iterations=200,
            step_size=1 / 255,
            threshold=5.0,  # years
            dilation=15,
            remat="step",
        )
    )
    config.generator = dict(
        checkpoint="checkpoints/celebahq_ddpm",
        original="celebahq-ddpm.pt, the CelebA HQ diffusion model of ACE, in "
        "https://huggingface.co/guillaumejs2403/ACE",
        convert="celebahq-ddpm.pt --kind ddpm --preset celebahq",
    )
    config.regressor = common.AGE_REGRESSOR
    config.oracle = common.AGE_ORACLE  # only for evaluation
    return config
