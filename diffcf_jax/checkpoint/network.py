"""What a network directory describes: a linen module, its variables, how it is to be used."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from diffcf_jax.errors import UserError
from diffcf_jax.models.caffe_resnet import CaffeResNet
from diffcf_jax.models.densenet import DenseNet
from diffcf_jax.models.diffae import DiffAE
from diffcf_jax.models.latent_dpm import LatentDPM
from diffcf_jax.models.resnet import ResNet
from diffcf_jax.models.unet import UNet

MODULES = {
    "ddpm": UNet,
    "diffae": DiffAE,
    "latent_dpm": LatentDPM,
    "resnet": ResNet,
    "densenet": DenseNet,
    "caffe_resnet": CaffeResNet,
}
REGRESSORS = ("resnet", "densenet")


@dataclasses.dataclass(frozen=True)
class Network:
    """A module with its variables.

    Attributes:
        description: as in network.json: `kind` (a key of `MODULES`), `model` (the module's
            arguments), `diffusion` (arguments of `make_diffusion`, for generators), `image_size`,
            `unit`, `mean` and `scale` (a regressor predicts `(y - mean) / scale` of a label y in
            that unit), `training` (how it was made).
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


def build_module(description: Mapping[str, Any]) -> nn.Module:
    """Makes the module that a description names.

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
    """Initialises the variables of the described network."""
    module = build_module(description)
    t = jnp.zeros((1,), jnp.int32)
    if description["kind"] == "latent_dpm":
        return module.init(key, jnp.zeros((1, module.channels)), t)
    size = description["image_size"]
    _check_size(description)
    x = jnp.zeros((1, size, size, 3))
    inputs = {"ddpm": (x, t), "diffae": (x, x, t)}.get(description["kind"], (x,))
    return module.init(key, *inputs)


def abstract_variables(description: Mapping[str, Any]) -> Any:
    """The shapes and dtypes of the described network's variables."""
    return jax.eval_shape(lambda key: init_variables(description, key), jax.random.key(0))


def _check_size(description: Mapping[str, Any]) -> None:
    """Refuses an image that a UNet cannot halve at every level and put together again."""
    model = description["model"].get("unet", description["model"])
    if description["kind"] in ("ddpm", "diffae"):
        levels = len(model.get("channel_mult", UNet.channel_mult))
        multiple = model.get("patch_size", UNet.patch_size) * 2 ** (levels - 1)
        if description["image_size"] % multiple:
            raise UserError(
                f"This {description['kind']} needs an image_size that is a multiple of {multiple}, "
                f"not {description['image_size']}."
            )
