"""Diff-AE-RE on the 630 validation squares, targets "mirror" (the paper's Table 1).

python explain.py --config configs/squares_diffae.py --workdir out_diffae
python -m eval.metrics --results out_diffae

On the saved images: Square MAE 0.043, Background MAE 0.0013 (median 0.0008), success 100%, 5.8
iterations (at most 12), of which 3 slide; the oracle's predictions are 0.015 from the target. It
took 3.6 minutes on 2 AVX-512 cores. With the defaults, the l2 distance and 20 inversion steps, the
figures are 0.040, 0.0022 and 0.016. Adam with a rate of 0.03 and the l1 distance in pixels needed
as many for 0.056, 0.0025 and 0.026; with the paper's rate of 0.002 the first 32 images needed 68
each, for 0.097 and 0.014.
"""

import ml_collections

from diffcf_jax import DiffAERE
from diffcf_jax.configs import common


def get_config() -> ml_collections.ConfigDict:
    """Returns the config."""
    config = common.explaining(data=dict(name="squares"), batch_size="16")
    config.method = common.method(DiffAERE(distance="l1", inversion_steps=50))
    config.generator = dict(checkpoint="checkpoints/squares_diffae")
    config.regressor = common.regressor("checkpoints/squares_regressor")
    config.oracle = common.regressor("checkpoints/squares_oracle")  # only for evaluation
    return config
