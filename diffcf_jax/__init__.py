"""Diffusion counterfactuals for image regressors.

from diffcf_jax import ACRE, Explainer, load_network

explainer = Explainer(load_network("checkpoints/squares_ddpm"), regressor, ACRE(tau=5))
explanation = explainer.explain(images, targets=0.6)
explanation.report("out")
"""

import importlib
from typing import TYPE_CHECKING, Any

from diffcf_jax.errors import UserError

if TYPE_CHECKING:
    from diffcf_jax.checkpoint.network import Network
    from diffcf_jax.checkpoint.store import load_network
    from diffcf_jax.counterfactual.ac_re import ACRE
    from diffcf_jax.counterfactual.diffae_re import DiffAERE
    from diffcf_jax.counterfactual.hybrid import Hybrid
    from diffcf_jax.explainer import Explainer, Progress, explain
    from diffcf_jax.explanation import Explanation
    from diffcf_jax.regressors.load import load_regressor
    from diffcf_jax.target import Range
    from diffcf_jax.units import Unit

_HOMES = {
    "ACRE": "counterfactual.ac_re",
    "DiffAERE": "counterfactual.diffae_re",
    "Explainer": "explainer",
    "Explanation": "explanation",
    "Hybrid": "counterfactual.hybrid",
    "Network": "checkpoint.network",
    "Progress": "explainer",
    "Range": "target",
    "Unit": "units",
    "explain": "explainer",
    "load_network": "checkpoint.store",
    "load_regressor": "regressors.load",
}

__all__ = [
    "ACRE", "DiffAERE", "Explainer", "Explanation", "Hybrid", "Network", "Progress", "Range",
    "Unit", "UserError", "explain", "load_network", "load_regressor",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    # Only when it is asked for: processes that merely read images need no JAX.
    if name in _HOMES:
        return getattr(importlib.import_module(f"diffcf_jax.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
