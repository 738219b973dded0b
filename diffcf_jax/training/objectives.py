"""What each network is trained to do: its loss, metrics and pictures.

An objective is a frozen dataclass with three pure methods:
    loss(variables, inputs, labels, key, progress)
        -> (loss, (metrics, updated non-parameter variables))
    evaluate(variables, inputs, labels, key) -> {metric: [B]} of held-out inputs
    picture(variables, inputs, key) -> rows of images [B, H, W, 3], or None; the last row is what
        the network makes by itself, whose Fréchet distance is measured
`inputs` are images, float32 [B, H, W, 3] in [0, 1] (codes [B, D] for the latent DPM; the loss of a
DDPM gets what was done to the images as well), `labels`
float32 [B] in the user's unit; `progress` is the share of the training that is done, 0 to 1.
Its attributes `frozen`, the variables of other networks that evaluate and picture find among
`variables`, and `trained`, which says of a top-level module's name whether its parameters are
trained (None: all of them), complete it.
"""

import inspect
from collections.abc import Mapping
from typing import Any

import flax.linen as nn

from diffcf_jax.checkpoint.network import REGRESSORS, Network
from diffcf_jax.diffusion.schedule import make_diffusion
from diffcf_jax.errors import UserError
from diffcf_jax.training.generators import DDPMObjective, DiffAEObjective
from diffcf_jax.training.latent import LatentDPMObjective
from diffcf_jax.training.options import build, check_keys
from diffcf_jax.training.regression import RegressionObjective

Objective = DDPMObjective | DiffAEObjective | LatentDPMObjective | RegressionObjective


def make_objective(
    network: Mapping[str, Any],
    module: nn.Module,
    arguments: Mapping[str, Any],
    diffae: Network | None = None,
) -> Objective:
    """Makes the objective that trains a network of this kind.

    Args:
        network: its description.
        module: its module, in the dtype of the training.
        arguments: attributes of the objective.
        diffae: the Diff-AE whose codes a latent DPM learns.

    Raises:
        UserError: the network or an argument does not fit.
    """
    kind = network["kind"]
    if kind in REGRESSORS:
        labels = {"mean": network["mean"], "scale": network["scale"]}
        return build(RegressionObjective, arguments, "config.objective", module=module, **labels)
    generators = {
        "ddpm": DDPMObjective, "diffae": DiffAEObjective, "latent_dpm": LatentDPMObjective,
    }  # fmt: skip
    if kind not in generators:
        known = ", ".join((*REGRESSORS, *generators))
        raise UserError(f"config.network.kind='{kind}' cannot be trained: use {known}.")
    process = network.get("diffusion", {})
    check_keys(
        process, list(inspect.signature(make_diffusion).parameters), "config.network.diffusion"
    )
    given = {"module": module, "diffusion": make_diffusion(**process)}
    if kind == "latent_dpm":
        given["diffae"] = diffae
    return build(generators[kind], arguments, "config.objective", **given)
