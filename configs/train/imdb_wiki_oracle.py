"""The paper's oracle of ages: the DenseNet-121 of the regressor with all its layers trained.

python train.py --config configs/train/imdb_wiki_oracle.py --workdir runs/age_oracle \
    --config.data.path=imdb_faces
"""

import ml_collections

from diffcf_jax.configs.train import imdb_wiki_regressor


def get_config() -> ml_collections.ConfigDict:
    """Returns the config."""
    config = imdb_wiki_regressor.get_config()
    config.seed = 1
    config.objective.freeze_features = False
    return config
