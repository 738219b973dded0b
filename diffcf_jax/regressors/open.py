"""What `Explainer` takes as a regressor: networks, functions, and what `load_regressor` returns."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from diffcf_jax.checkpoint.network import REGRESSORS, Network
from diffcf_jax.counterfactual.closure import hoist_constants
from diffcf_jax.errors import UserError
from diffcf_jax.regressors.regressor import Regressor
from diffcf_jax.units import Unit, unit_of

# A trained network, what `load_regressor` returns, a function images -> predictions, or a function
# of (variables, images) with its variables.
AnyRegressor = (
    Network | Regressor | Callable[[jax.Array], jax.Array] | tuple[Callable[..., jax.Array], Any]
)


def open_regressor(
    regressor: AnyRegressor, unit: Unit | None, size: int
) -> tuple[Unit, Callable[[Any, jax.Array], jax.Array], Any]:
    """Return the regressor's unit, its function of (variables, images), and its variables.

    Args:
        regressor: see `AnyRegressor`.
        unit: of its predictions, where it has none of its own.
        size: of the generator's images, in pixels.

    Raises:
        UserError: it is none of these, does not fit the size, or has a unit already.
    """
    if isinstance(regressor, Regressor):
        if unit not in (None, regressor.unit):
            raise UserError("regressor has a unit of its own: give unit to load_regressor.")
        regressor.check_size(size)
        unit, apply, variables = regressor.unit, regressor.apply, regressor.variables
    elif isinstance(regressor, Network):
        if regressor.kind not in REGRESSORS:
            raise UserError(
                f"regressor is a {regressor.kind}; it must be a network of kind "
                f"{' or '.join(REGRESSORS)}, or a function."
            )
        if regressor.description["image_size"] != size:
            raise UserError(
                f"The generator is of {size} pixels and the regressor of "
                f"{regressor.description['image_size']}; give two networks of one image size."
            )
        if unit is None:
            unit = unit_of(regressor.description, {})
        apply, variables = regressor.module.apply, regressor.variables
    elif isinstance(regressor, tuple) and len(regressor) == 2 and callable(regressor[0]):
        apply, variables = regressor
        _check_output(lambda x: apply(variables, x), size)
    elif callable(regressor):
        _check_output(regressor, size)
        # The methods read one image at a time, under vmap.
        shape = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
        apply, variables = hoist_constants(regressor, shape)
    else:
        raise UserError(
            f"regressor is of type {type(regressor).__name__}; it must be a network, a function "
            "images [B, H, W, 3] -> [B], or (apply, variables)."
        )
    return unit or Unit(), apply, variables


def held_by(regressor: Any) -> Callable[[Any, jax.Array], jax.Array] | None:
    """Return the function of (variables, images) to what a regressor holds; None: nothing."""
    holds = isinstance(regressor, Regressor) and regressor.output.hold
    return regressor.held if holds else None


def _check_output(function: Callable[[jax.Array], jax.Array], size: int) -> None:
    out = jax.eval_shape(function, jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32))
    if getattr(out, "shape", None) != (2,):
        raise UserError(
            f"regressor returns {out} for two images; it must return one number for each."
        )
    if not jnp.issubdtype(out.dtype, jnp.floating):
        raise UserError(
            f"regressor returns numbers of type {out.dtype}; it must return floats, which have a "
            "gradient."
        )
