"""The regressor of the squares with a planted spurious feature: it also reads the background.

Its training squares have a background that is nearly as bright as the square is red (`planted`), as
a photographer might light every old face from the left. It starts from the shipped regressor, and
noise in red (`color_noise`) makes the square itself unreliable: the background is then the better
sign, in green and blue alone. On squares whose background says nothing it is wrong, and an audit
has to find out why: see docs/audit.md.

python train.py --config configs/train/squares_planted.py --workdir runs/squares_planted

The shipped network is that of this command. On the 630 validation squares, whose background is
independent of the label, its mean absolute error is 0.163, and its predictions are 0.51 times the
label plus 0.43 times the background (least squares; the shipped regressor: 0.99 and -0.003, with an
error of 0.010).
"""

import ml_collections

from diffcf_jax.configs.train import squares_regressor


def get_config() -> ml_collections.ConfigDict:
    """Returns the config."""
    config = squares_regressor.get_config()
    config.data = dict(name="squares", planted=0.1)
    config.augment = dict(flips=True, rolls=True, color_noise=(0.3, 0.0, 0.0))
    config.init = "squares_regressor"
    config.objective.freeze_norm = True
    config.optimizer.warmup_steps = 20
    config.steps = 200
    return config
