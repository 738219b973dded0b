"""The hybrid on the 630 validation squares, targets "mirror" (the paper's Table 1).

python explain.py --config configs/squares_hybrid.py --workdir out_hybrid
python -m eval.metrics --results out_hybrid

They take five minutes on two CPU cores, compiling included:
Square MAE 0.035 (95% interval 0.034 to 0.037), Background MAE 0.0004, success 100%, 7.3 iterations
(at most 72); the oracle's predictions are 0.016 (0.015 to 0.018) from the target.
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
