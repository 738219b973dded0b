"""Makes a method from networks and hyper-parameters."""

import math
import numbers
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import optax

from diffcf_jax.checkpoint.network import Network
from diffcf_jax.counterfactual.ac_re import ACRE
from diffcf_jax.counterfactual.diffae_re import DiffAERE
from diffcf_jax.counterfactual.losses import DISTANCES
from diffcf_jax.counterfactual.types import Method, Regressor
from diffcf_jax.diffusion.schedule import make_diffusion
from diffcf_jax.errors import UserError

METHODS = {"ac-re": "ddpm", "diffae-re": "diffae"}
PRECISION = {"float32": None, "bfloat16": jnp.bfloat16}
_CHOICES = {
    "remat": ("none", "step", "block"),
    "precision": tuple(PRECISION),
    "distance": tuple(DISTANCES),
    "distance_space": ("latent", "pixel"),
}


def _is_count(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and value >= 1


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and math.isfinite(value)


_COUNT = _is_count, "a whole number of at least 1"
_POSITIVE = lambda v: _is_number(v) and v > 0, "a finite number above 0"
_NOT_NEGATIVE = lambda v: _is_number(v) and v >= 0, "a finite number of at least 0"
_RANGES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "iterations": _COUNT,
    "tau": _COUNT,
    "inversion_steps": _COUNT,
    "decode_steps": _COUNT,
    "dilation": (lambda v: _is_count(v) and v % 2 == 1, "an odd whole number of at least 1"),
    "step_size": _POSITIVE,
    "learning_rate": _POSITIVE,
    "gradient_floor": (lambda v: _is_number(v) and 0 <= v <= 1, "a number between 0 and 1"),
    "threshold": _NOT_NEGATIVE,
    "inpaint": _NOT_NEGATIVE,
    "distance_weight": _NOT_NEGATIVE,
}


def build_method(
    name: str, generator: Network, regressor: Regressor, options: Mapping[str, Any]
) -> Method:
    """Makes AC-RE or Diff-AE-RE.

    Args:
        name: "ac-re" or "diffae-re".
        generator: a DDPM for AC-RE, a Diff-AE for Diff-AE-RE.
        regressor: (variables, images [B, H, W, 3] in [0, 1]) -> [B].
        options: attributes of `ACRE` and `respacing`; or attributes of `DiffAERE` with
            `inversion_steps`, `decode_steps` and `learning_rate`; and for both
            `remat`, what a gradient recomputes to save memory: "none" (no convolution, product
            or attention), each denoising "step" or within it each "block" of the network; and
            `precision`, that of the generator: "float32" or "bfloat16". Parameters, norms,
            softmax, the network's output and everything outside of it are float32 always.

    Raises:
        UserError: the name, an option, or the kind of the generator does not fit.
    """
    if name not in METHODS:
        raise UserError(f"Unknown method '{name}'; choose one of {', '.join(METHODS)}.")
    if generator.kind != METHODS[name]:
        raise UserError(
            f"The method {name} needs a generator of kind {METHODS[name]}, "
            f"but generator.checkpoint is a {generator.kind}."
        )
    _check_values(options)
    options = dict(options)
    remat, precision = options.pop("remat", "none"), options.pop("precision", "float32")
    options["remat"] = remat != "none"
    diffusion = generator.description["diffusion"]
    module = generator.module.clone(dtype=PRECISION[precision], remat=remat == "block")
    try:
        if name == "ac-re":
            process = make_diffusion(**diffusion, respacing=options.pop("respacing", "50"))
            _check_depth(options.get("tau", ACRE.tau), process.num_timesteps)
            return ACRE(process, module.apply, regressor, **options)
        learning_rate = options.pop("learning_rate", 0.002)
        return DiffAERE(
            encode=lambda v, x: module.apply(v, x, method="encode"),
            predict=lambda v, x_t, t, z: module.apply(v, x_t, t, z, method="predict"),
            inversion=make_diffusion(
                **diffusion, respacing=f"ddim{options.pop('inversion_steps', 250)}"
            ),
            decoding=make_diffusion(
                **diffusion, respacing=f"ddim{options.pop('decode_steps', 10)}"
            ),
            regressor=regressor,
            optimizer=optax.adam(learning_rate),
            **options,
        )
    except TypeError as error:
        raise UserError(f"An option of config.method does not fit {name}: {error}.") from None


def _check_values(options: Mapping[str, Any]) -> None:
    for key, value in options.items():
        if key in _CHOICES and value not in _CHOICES[key]:
            choices = ", ".join(_CHOICES[key])
            raise UserError(f"Unknown config.method.{key}={value!r}; choose {choices}.")
        fits, what = _RANGES.get(key, (lambda value: True, ""))
        if not fits(value):
            raise UserError(f"config.method.{key} must be {what}.")


def _check_depth(tau: int, timesteps: int) -> None:
    if not 1 <= tau <= timesteps:
        raise UserError(f"config.method.tau={tau} must lie between 1 and {timesteps} steps.")
