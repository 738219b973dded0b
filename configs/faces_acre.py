"""AC-RE on 100 photographs of faces, towards 20, 40, 60 and 80 years.

diffcf fetch faces
python explain.py --config configs/faces_acre.py --workdir out_faces_acre
python -m eval.metrics --results out_faces_acre --weights faces --suite full

Of the regressor's predictions for the 899 training faces 1.6% are at most 20 years, 4.9% at least
60, and the largest is just below 80, where its range ends: for the target 80 the threshold of 2
years asks for what it says of 1.1% of them. Up to tau = 3 F_tau alone moves a reading by less than
the threshold. docs/faces.md has more.

`faces_acre:expert` explains face_age_expert.keras instead, towards 20, 40 and 60 years; it needs
`pip install 'diffcf_jax[keras]'` and KERAS_BACKEND=jax.
"""

import ml_collections

from diffcf_jax import ACRE
from diffcf_jax.configs import common


def get_config(explained: str = "age_v1") -> ml_collections.ConfigDict:
    """Returns the config for one of the two regressors."""
    config = common.explaining_faces(ACRE(tau=3, threshold=2.0), explained)  # years
    config.generator = dict(checkpoint="checkpoints/faces_ddpm")
    return config
