"""What a network directory describes: a linen module, its variables, how it is to be used."""

import dataclasses
import hashlib
import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from diffcf_jax.checkpoint.description import MODULES, REGRESSORS
from diffcf_jax.errors import UserError
from diffcf_jax.models.unet import UNet

__all__ = [
    "MODULES",
    "REGRESSORS",
    "Network",
    "abstract_variables",
    "build_module",
    "fingerprint",
    "init_variables",
]


@dataclasses.dataclass(frozen=True)
class Network:
    """A generator or regressor: a linen module with its variables and what its numbers mean.

    Generators (kinds "ddpm", "diffae", "latent_dpm") work on images in [-1, 1], float32
    [B, H, W, 3]. Regressors (kinds in `REGRESSORS`) take images in [0, 1] and predict
    `(y - mean) / scale`, float32 [B], of a label y in `unit`. `diffcf_jax.load_network` reads one
    from a directory, `module.apply(variables, ...)` runs it.

    Attributes:
        description: as in network.json: `kind` (a key of `MODULES`), `model` (the module's
            arguments), `diffusion` (arguments of `make_diffusion`, for generators), `image_size`
            (in pixels), `unit`, `mean` and `scale` (for regressors), `training` (how it was made),
            `digest` (`fingerprint` of the variables that were saved).
        module: the linen module.
        variables: what `module.apply` takes first.
    """

    description: dict[str, Any]
    module: nn.Module
    variables: Any

    @property
    def kind(self) -> str:
        """What the network is, a key of `MODULES`."""
        return self.description["kind"]

    def __repr__(self) -> str:
        size, unit = self.description["image_size"], self.description.get("unit")
        count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(self.variables))
        parts = [self.kind, f"{count:,} parameters"]
        if size is not None:
            parts.insert(1, f"{size}x{size} pixels")
        if unit:
            parts.append(f"in {unit}")
        return f"Network({', '.join(parts)})"


def fingerprint(variables: Any) -> str:
    """Return a hash of a tree of arrays, the same wherever they are loaded from."""
    digest = hashlib.blake2b(digest_size=16)
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
        digest.update(f"{jax.tree_util.keystr(path)} {leaf.dtype} {leaf.shape}".encode())
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()


def build_module(description: Mapping[str, Any]) -> nn.Module:
    """Make the module that a description names.

    Raises:
        UserError: the kind or one of its arguments is unknown.
    """
    kind, arguments = description["kind"], description["model"]
    if kind not in MODULES:
        raise UserError(f"Unknown network kind '{kind}'; choose one of {', '.join(MODULES)}.")
    try:
        return MODULES[kind](**arguments)
    except TypeError as error:
        raise UserError(f"The model arguments do not fit a {kind}: {error}.") from None


def init_variables(description: Mapping[str, Any], key: jax.Array) -> Any:
    """Initialise the variables of the described network."""
    module = build_module(description)
    t = jnp.zeros((1,), jnp.int32)
    if description["kind"] == "latent_dpm":
        return module.init(key, jnp.zeros((1, module.channels)), t)
    size = description["image_size"]
    _check_size(description)
    x = jnp.zeros((1, size, size, 3))
    inputs = {"ddpm": (x, t), "diffae": (x, x, t), "lpips": (x, x)}.get(description["kind"], (x,))
    return module.init(key, *inputs)


def abstract_variables(description: Mapping[str, Any]) -> Any:
    """Return the shapes and dtypes of the described network's variables.

    Raises:
        UserError: the arguments describe no network that can be built.
    """
    try:
        return jax.eval_shape(lambda key: init_variables(description, key), jax.random.key(0))
    except UserError:
        raise
    except Exception as error:  # Flax and JAX find out in many ways
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise UserError(
            f"The model arguments describe no {description['kind']} that can be built: {reason}"
        ) from None


def _check_size(description: Mapping[str, Any]) -> None:
    """Refuse an image that a UNet cannot halve at every level and put together again."""
    model = description["model"].get("unet", description["model"])
    if description["kind"] in ("ddpm", "diffae"):
        levels = len(model.get("channel_mult", UNet.channel_mult))
        multiple = model.get("patch_size", UNet.patch_size) * 2 ** (levels - 1)
        if description["image_size"] % multiple:
            raise UserError(
                f"This {description['kind']} needs an image_size that is a multiple of {multiple}, "
                f"not {description['image_size']}."
            )
