"""AC-RE on the 630 validation squares, targets "mirror" (the paper's Table 1).

python explain.py --config configs/squares_acre.py --workdir out_acre
python -m eval.metrics --results out_acre

On the saved images: Square MAE 0.039, Background MAE 0.0003, success 100%, 6.7 iterations (median
5, at most 23); the oracle's predictions are 0.042 from the target. It took 2.3 minutes on 2
AVX-512 cores. PGD with a floor of 0.15, as in version 0.1.0, needed 61 iterations for 0.048 and
0.0005.
"""

import ml_collections

from diffcf_jax import ACRE
from diffcf_jax.configs import common


def get_config() -> ml_collections.ConfigDict:
    """Returns the config."""
    config = common.explaining(data=dict(name="squares"), batch_size="16")
    config.method = common.method(ACRE(iterations=40))
    config.generator = dict(checkpoint="checkpoints/squares_ddpm")
    config.regressor = common.regressor("checkpoints/squares_regressor")
    config.oracle = common.regressor("checkpoints/squares_oracle")  # only for evaluation
    return config
