"""Diff-AE-RE on the 630 validation squares, targets "mirror" (the paper's Table 1).

python explain.py --config configs/squares_diffae.py --workdir out_diffae
python -m eval.metrics --results out_diffae

On the saved images: Square MAE 0.056, Background MAE 0.0025, success 100%, 5.9 iterations; the
oracle's predictions are 0.026 from the target. It took 18 minutes on 2 AVX2 cores
(JAX_NUM_CPU_DEVICES=2) that were busy with other work besides.

With the paper's values (--config.method.learning_rate=0.002 --config.method.distance_weight=0.0)
and the regressor of the second training the first 32 images needed 68 iterations each and had
Square MAE 0.097 and Background MAE 0.014, with these 5.3, 0.068 and 0.0029: small steps stop as
soon as |prediction - target| falls below the threshold, large ones land anywhere within it.
"""

import ml_collections

from diffcf_jax import DiffAERE
from diffcf_jax.configs import common


def get_config() -> ml_collections.ConfigDict:
    """Returns the config."""
    config = common.explaining(data=dict(name="squares"), batch_size="16")
    config.method = common.method(DiffAERE())
    config.generator = dict(checkpoint="checkpoints/squares_diffae")
    config.regressor = common.regressor("checkpoints/squares_regressor")
    config.oracle = common.regressor("checkpoints/squares_oracle")  # only for evaluation
    return config
