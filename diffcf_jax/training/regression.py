"""The training of regressors and oracles."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from diffcf_jax.errors import UserError
from diffcf_jax.training.options import at_least, check_types

Array = jax.Array

LOSSES = {"l1": jnp.abs, "mse": jnp.square}  # of an error
HEADS = ("fc", "classifier")  # the last layer of a ResNet and of a DenseNet


@dataclasses.dataclass(frozen=True, eq=False)
class RegressionObjective:
    """Mean squared or absolute error of a regressor, optionally on adversarial images.

    The network predicts (y - mean) / scale of a label y, which is what the loss compares.

    Where tiny changes of the background move a prediction, pixel-space counterfactuals edit the
    background. Fast adversarial training (Wong et al., 2020) prevents that: each pixel changes by
    at most a random share of `adversarial`, drawn per image, from a random start along the sign of
    the gradient. The bound grows over the first half of the training; a fresh network learns
    nothing from the full one.

    Attributes:
        module: the regressor.
        loss_type: "mse", or "l1", whose best prediction is the median of the possible labels
            instead of their mean: closer where labels cluster at an end of their range.
        mean: of the labels, in the user's unit.
        scale: their standard deviation, in the user's unit.
        adversarial: the largest change of a pixel, in [0, 1]; 0 trains on clean images.
        freeze_features: train the head only. Batch norm uses its running statistics, as it does
            after the training, and the features stay as they are.
        freeze_norm: train everything on the running statistics, which stay as they are. The
            statistics of a batch are a noise that bounds the precision of a regressor; a last
            training on the running ones removes it.
    """

    module: nn.Module
    mean: float = 0.0
    scale: float = 1.0
    loss_type: Literal["l1", "mse"] = "mse"
    adversarial: float = 0.0
    freeze_features: bool = False
    freeze_norm: bool = False

    frozen: ClassVar[Mapping[str, Any]] = {}
    best: ClassVar[str] = "mae"

    def __post_init__(self) -> None:
        """Checks what a config may get wrong."""
        check_types(self, "config.objective")
        at_least(0, "config.objective.adversarial", self.adversarial)
        if not self.scale >= float(jnp.finfo(jnp.float32).tiny):
            raise UserError(f"config.network.scale={self.scale:g} must be positive in float32.")

    @property
    def trained(self) -> Callable[[str], bool] | None:
        """Which top-level modules' parameters are trained; None: all of them."""
        return HEADS.__contains__ if self.freeze_features else None

    def loss(self, variables: Any, images: Array, labels: Array, key: Array, progress: Array):
        """Loss of y - y_hat, normalised, with batch statistics where the module keeps them."""
        wanted = (labels - self.mean) / self.scale
        train = not (self.freeze_features or self.freeze_norm)
        rest = [name for name in variables if name != "params"]
        params = variables["params"]
        if self.freeze_features:
            stopped = jax.lax.stop_gradient(params)
            params = {name: params[name] if name in HEADS else stopped[name] for name in params}
        variables = {**variables, "params": params}

        def mean_loss(images: Array) -> tuple[Array, Any]:
            predictions, updated = self.module.apply(variables, images, train=train, mutable=rest)
            return jnp.mean(LOSSES[self.loss_type](predictions - wanted)), updated

        if self.adversarial:
            key_radius, key_start = jax.random.split(key)
            share = jax.random.uniform(key_radius, (images.shape[0], 1, 1, 1))
            radius = self.adversarial * jnp.minimum(2 * progress, 1) * share
            start = radius * jax.random.uniform(key_start, images.shape, minval=-1, maxval=1)
            direction = jnp.sign(jax.grad(mean_loss, has_aux=True)(images + start)[0])
            change = jnp.clip(start + 1.25 * radius * direction, -radius, radius)
            images = jax.lax.stop_gradient(images + change)
        loss, updated = mean_loss(images)
        return loss, ({}, updated)

    def evaluate(self, variables: Any, images: Array, labels: Array, key: Array):
        """Absolute error in the user's unit, and the loss; on running statistics."""
        del key
        error = self.module.apply(variables, images) - (labels - self.mean) / self.scale
        return {"mae": jnp.abs(error) * self.scale, "loss": LOSSES[self.loss_type](error)}

    def picture(self, variables: Any, images: Array, key: Array) -> None:
        """A regressor has nothing to show."""
