"""The paper's regressor of ages: a DenseNet-121 of which only the head is trained.

Its features are those of STEEX's CelebAMask-HQ classifier (`checkpoint.tar`, its decision model, in
https://github.com/valeoai/STEEX); their batch norm stays frozen. The faces are cropped once by
diffcf_jax.data.imdb_wiki.

python -m diffcf_jax.checkpoint.convert checkpoint.tar --kind steex-classifier \
    --out checkpoints/steex_classifier
python -m diffcf_jax.data.imdb_wiki imdb-clean imdb_faces
python train.py --config configs/train/imdb_wiki_regressor.py --workdir runs/age_regressor \
    --config.data.path=imdb_faces
"""

import ml_collections

from diffcf_jax.configs.train import regressor


def get_config() -> ml_collections.ConfigDict:
    """Returns the config."""
    config = regressor.get_config("paper")
    config.seed = 0
    config.data.name = "imdb-wiki"
    config.network.unit = "years"
    config.network.mean = 0.0
    config.network.scale = 100.0
    config.init = "checkpoints/steex_classifier"
    config.objective.freeze_features = True
    return config
