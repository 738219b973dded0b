"""The hybrid on your own images, with networks that you have trained on them.

python explain.py --config configs/own_hybrid.py --workdir out_own --config.data.path=IMAGES \
    --config.targets=20,60 --config.method.threshold=2
python -m eval.metrics --results out_own

Targets and threshold are in the unit of your labels. The checkpoints are those that
configs/train/diffae.py, ddpm.py, regressor.py and oracle.py make in runs/.
"""

import ml_collections

from diffcf_jax import Hybrid
from diffcf_jax.configs import common


def get_config() -> ml_collections.ConfigDict:
    """Returns the config."""
    config = common.explaining(data=dict(name="folder", convert=True), batch_size="4")
    config.method = common.method(Hybrid())
    config.generator = dict(checkpoint="runs/diffae/network")
    config.refiner = dict(checkpoint="runs/ddpm/network")
    config.regressor = common.regressor("runs/regressor/best")
    config.oracle = common.regressor("runs/oracle/best")  # only for evaluation
    return config
