"""Makes a method from networks and hyper-parameters."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import optax

from diffcf_jax.checkpoint.network import Network
from diffcf_jax.counterfactual.ac_re import ACRE
from diffcf_jax.counterfactual.diffae_re import DiffAERE
from diffcf_jax.counterfactual.types import Method, Regressor
from diffcf_jax.diffusion.schedule import make_diffusion
from diffcf_jax.errors import UserError

METHODS = {"ac-re": "ddpm", "diffae-re": "diffae"}
REMAT = ("none", "step", "block")
PRECISION = {"float32": None, "bfloat16": jnp.bfloat16}


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
    options = dict(options)
    remat, precision = options.pop("remat", "none"), options.pop("precision", "float32")
    for key, value, known in (("remat", remat, REMAT), ("precision", precision, PRECISION)):
        if value not in known:
            raise UserError(f"Unknown config.method.{key}={value!r}; choose {', '.join(known)}.")
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


def _check_depth(tau: int, timesteps: int) -> None:
    if not 1 <= tau <= timesteps:
        raise UserError(f"config.method.tau={tau} must lie between 1 and {timesteps} steps.")
