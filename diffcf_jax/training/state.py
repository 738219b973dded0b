"""The training state and its update: optimiser, exponential moving average, one step."""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from diffcf_jax.errors import UserError

Array = jax.Array


@flax.struct.dataclass
class TrainState:
    """Everything that a restart needs.

    Attributes:
        step: updates done so far.
        variables: the network's variables.
        ema: their exponential moving average, which is what gets used afterwards.
        opt_state: of the optimiser.
    """

    step: Array
    variables: Any
    ema: Any
    opt_state: Any


def make_optimizer(
    steps: int,
    learning_rate: float,
    warmup_steps: int = 0,
    schedule: str = "constant",
    weight_decay: float = 0.0,
    clip: float | None = None,
) -> optax.GradientTransformation:
    """AdamW with linear warm-up, then a constant rate or a cosine to zero.

    Args:
        steps: length of the training.
        learning_rate: the highest rate.
        warmup_steps: updates until it is reached.
        schedule: "constant" or "cosine".
        weight_decay: decoupled, as in AdamW.
        clip: the largest global norm of a gradient, or None.
    """
    if warmup_steps >= steps:
        raise UserError(f"config.optimizer.warmup_steps must be less than config.steps={steps}.")
    if schedule == "cosine":
        rate = optax.warmup_cosine_decay_schedule(0.0, learning_rate, warmup_steps, steps)
    elif schedule == "constant":
        # optax's linear schedule over no steps stays at its start.
        ramp = optax.linear_schedule(0.0, learning_rate, warmup_steps)
        rate = ramp if warmup_steps else learning_rate
    else:
        raise UserError(f"Unknown config.optimizer.schedule '{schedule}': constant or cosine.")
    adamw = optax.adamw(rate, weight_decay=weight_decay)
    return optax.chain(optax.clip_by_global_norm(clip), adamw) if clip else adamw


def create_state(variables: Any, optimizer: optax.GradientTransformation) -> TrainState:
    """The state before the first update."""
    ema = jax.tree.map(jnp.copy, variables)  # own buffers: the update donates its input
    opt_state = optimizer.init(variables["params"])
    return TrainState(jnp.zeros((), jnp.int32), variables, ema, opt_state)


def make_update(
    loss: Callable,
    optimizer: optax.GradientTransformation,
    ema_decay: float,
    steps: int,
    flips: bool = False,
    rolls: bool = False,
) -> Callable[[TrainState, Array, Array, Array], tuple[TrainState, dict[str, Array]]]:
    """Makes the update (state, images, labels, key) -> (state, metrics).

    The average is `ema += (1 - d) (variables - ema)` with `d = min(ema_decay, (1 + n) / (10 + n))`
    after n updates, so that it forgets its initialisation.

    Args:
        loss: of an objective.
        optimizer: see `make_optimizer`.
        ema_decay: of the exponential moving average.
        steps: length of the training.
        flips: mirror every image at random, horizontally and vertically.
        rolls: shift every image at random; what leaves on one side enters on the other.
    """

    def update(state: TrainState, images: Array, labels: Array, key: Array):
        # The step makes every draw its own, so a restart continues the same stream.
        key_flip, key_roll, key_loss = jax.random.split(jax.random.fold_in(key, state.step), 3)
        images = images.astype(jnp.float32) / 255
        if flips:
            images = random_flips(images, key_flip)
        if rolls:
            images = random_rolls(images, key_roll)
        rest = {name: v for name, v in state.variables.items() if name != "params"}

        def objective(params: Any):
            return loss({"params": params, **rest}, images, labels, key_loss, state.step / steps)

        (value, (metrics, updated)), grads = jax.value_and_grad(objective, has_aux=True)(
            state.variables["params"]
        )
        updates, opt_state = optimizer.update(grads, state.opt_state, state.variables["params"])
        params = optax.apply_updates(state.variables["params"], updates)
        variables = {"params": params, **rest, **updated}
        decay = jnp.minimum(ema_decay, (1.0 + state.step) / (10.0 + state.step))
        ema = jax.tree.map(lambda e, v: e + (1 - decay) * (v - e), state.ema, variables)
        metrics = {"loss": value, "grad_norm": optax.tree.norm(grads), **metrics}
        return TrainState(state.step + 1, variables, ema, opt_state), metrics

    return update


def random_flips(images: Array, key: Array) -> Array:
    """Mirrors each image [B, H, W, C] horizontally and vertically, each with probability 1/2."""
    horizontal, vertical = jax.random.bernoulli(key, shape=(2, images.shape[0], 1, 1, 1))
    images = jnp.where(horizontal, images[:, :, ::-1], images)
    return jnp.where(vertical, images[:, ::-1], images)


def random_rolls(images: Array, key: Array) -> Array:
    """Shifts each image [B, H, W, C] cyclically by a uniformly drawn number of rows and columns."""
    b, h, w, _ = images.shape
    key_rows, key_columns = jax.random.split(key)
    rows = jax.random.randint(key_rows, (b,), 0, h)
    columns = jax.random.randint(key_columns, (b,), 0, w)
    return jax.vmap(lambda image, i, j: jnp.roll(image, (i, j), (0, 1)))(images, rows, columns)
