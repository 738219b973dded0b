"""An oracle of your own labels: judges counterfactuals, is never optimised against.

The network of regressor.py in the same sizes, from another seed and trained on unchanged images.

python train.py --config configs/train/oracle.py:tiny --workdir runs/oracle \
    --config.data.path=IMAGES --config.data.labels=labels.csv
"""

import ml_collections

from diffcf_jax.configs.train import regressor


def get_config(variant: str = "tiny") -> ml_collections.ConfigDict:
    """Returns the config of a size."""
    config = regressor.get_config(variant)
    config.seed = 2
    config.objective.adversarial = 0.0
    return config
