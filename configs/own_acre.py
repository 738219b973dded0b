"""AC-RE on your own images, with networks that you have trained on them.

python explain.py --config configs/own_acre.py --workdir out_own --config.data.path=IMAGES \
    --config.targets=20,60 --config.method.threshold=2
python -m eval.metrics --results out_own

Targets and threshold are in the unit of your labels. The checkpoints are those that
configs/train/ddpm.py, regressor.py and oracle.py make in runs/.
"""

import ml_collections

from diffcf_jax.configs import common


def get_config() -> ml_collections.ConfigDict:
    """Returns the config."""
    config = common.explaining(data=dict(name="folder", convert=True), batch_size="4")
    config.method = dict(
        name="ac-re",
        respacing="50",  # of the generator's timesteps
        tau=5,  # depth of the noising, in respaced steps
        iterations=100,
        step_size=2 / 255,
        gradient_floor=0.0,  # the share of the largest gradient below which a value stays still
        threshold=0.05,  # success: |prediction - target| at most this; in the label's unit
        inpaint=0.15,  # dilated change below which a pixel is kept
        dilation=5,
        remat="none",  # what a gradient recomputes: "none", each "step" or "block" (least memory)
        precision="float32",  # of the generator; "bfloat16" for TPUs and recent GPUs
    )
    config.generator = dict(checkpoint="runs/ddpm/network")
    config.regressor = dict(checkpoint="runs/regressor/best")
    config.oracle = dict(checkpoint="runs/oracle/best")  # only for evaluation
    return config
