"""The hybrid on the 630 validation squares, targets "mirror" (the paper's Table 1).

python explain.py --config configs/squares_hybrid.py --workdir out_hybrid
python -m eval.metrics --results out_hybrid

On 48 of them, spread over the set: Square MAE 0.036, Background MAE 0.0004, success 100%, 7.1
iterations (at most 16); the oracle's predictions are 0.019 from the target. On the same squares
AC-RE has a Square MAE of 0.040, a Background MAE of 0.0003 and an oracle error of 0.043, Diff-AE-RE
0.040, 0.0025 and 0.018.
"""

import ml_collections

from diffcf_jax import Hybrid
from diffcf_jax.configs import common


def get_config() -> ml_collections.ConfigDict:
    """Returns the config."""
    config = common.explaining(data=dict(name="squares"), batch_size="16")
    config.method = common.method(Hybrid())
    config.generator = dict(checkpoint="checkpoints/squares_diffae")
    config.refiner = dict(checkpoint="checkpoints/squares_ddpm")
    config.regressor = common.regressor("checkpoints/squares_regressor")
    config.oracle = common.regressor("checkpoints/squares_oracle")  # only for evaluation
    return config
