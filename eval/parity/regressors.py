"""The regressors: predictions, input gradients, squared error."""

from typing import Any

import jax
import jax.numpy as jnp

from .golden import FLOAT32_ERROR, Golden, loss_error, prediction_error
from .networks import load_regressor

Array = jax.Array


def check(golden: Golden) -> None:
    """Compares a folder of kind `densenet` or `resnet`."""
    network = load_regressor(golden, "weights.npz")
    x, target = golden.images("x"), golden.real("target")

    @jax.jit
    def run(variables: Any, x: Array) -> tuple[Array, ...]:
        def predict(x: Array) -> Array:
            return network.module.apply(variables, x)[:, None]

        def mse(x: Array) -> Array:
            return jnp.mean(jnp.square(predict(x) - target))

        return predict(x), jax.grad(lambda x: predict(x).sum())(x), *jax.value_and_grad(mse)(x)

    y, grad_sum, mse, grad_mse = run(network.variables, x)
    error = prediction_error(y)
    golden.compare("out", y, f32=error)
    golden.compare_images("grad_sum", grad_sum)
    golden.compare("mse", mse, f32=loss_error(y, target))
    # The factor y - target has the error of y.
    largest = jnp.abs(grad_mse).max((1, 2, 3), keepdims=True)[..., 0, 0]
    miss = jnp.abs(y - target)
    error = float(jnp.max(largest * (FLOAT32_ERROR + error / miss)))
    golden.compare_images("grad_mse", grad_mse, f32=error)
