"""Diffusion counterfactuals for image regressors."""

from diffcf_jax.api import explain
from diffcf_jax.errors import UserError

__all__ = ["UserError", "explain"]
