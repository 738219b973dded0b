"""Diffusion counterfactuals for image regressors."""

from typing import TYPE_CHECKING, Any

from diffcf_jax.errors import UserError

if TYPE_CHECKING:
    from diffcf_jax.api import explain

__all__ = ["UserError", "explain"]


def __getattr__(name: str) -> Any:
    # Only when it is asked for: processes that merely read images need no JAX.
    if name == "explain":
        from diffcf_jax.api import explain

        return explain
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
