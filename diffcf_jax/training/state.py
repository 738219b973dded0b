"""The training state and its update: optimiser, exponential moving average, one step."""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from diffcf_jax.models.cpu.materialize import materialize
from diffcf_jax.training.config import OptimizerConfig

Array = jax.Array


@flax.struct.dataclass
class TrainState:
    """Everything that a restart needs.

    Attributes:
        step: updates done so far.
        variables: the network's variables.
        ema: their exponential moving average, the network that a training returns.
        opt_state: of the optimiser.
    """

    step: Array
    variables: Any
    ema: Any
    opt_state: Any


def make_optimizer(
    config: OptimizerConfig, steps: int, trained: Callable[[str], bool] | None = None
) -> optax.GradientTransformation:
    """AdamW on a schedule, of clipped gradients.

    Args:
        config: its options.
        steps: length of the training.
        trained: whether the parameters of the top-level module of that name are trained; None
            trains all. The others stay to the last bit: weight decay would move them as well.
    """
    peak, warmup = config.learning_rate, config.warmup_steps
    if config.schedule == "cosine":
        rate = optax.schedules.warmup_cosine_decay_schedule(0.0, peak, warmup, steps)
    elif warmup:
        rate = optax.schedules.warmup_constant_schedule(0.0, peak, warmup)
    else:  # for which optax's schedule would stay at 0
        rate = peak
    optimizer = optax.adamw(rate, weight_decay=config.weight_decay)
    if config.clip:
        optimizer = optax.chain(optax.clip_by_global_norm(config.clip), optimizer)
    if trained is None:
        return optimizer

    def kinds(params: Any) -> Any:
        return {name: "trained" if trained(name) else "frozen" for name in params}

    parts = {"trained": optimizer, "frozen": optax.set_to_zero()}
    return optax.multi_transform(parts, kinds)


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
    seed: int,
    prepare: Callable[[Array, Array], Any],
    accumulate: int = 1,
) -> Callable[[TrainState, Array, Array], tuple[TrainState, dict[str, Array]]]:
    """Makes the update (state, batch, labels) -> (state, metrics).

    The average is `ema += (1 - d) (variables - ema)` with `d = min(ema_decay, (1 + n) / (10 + n))`
    after n updates, so that it forgets its initialisation.

    Args:
        loss: of an objective.
        optimizer: see `make_optimizer`.
        ema_decay: of the exponential moving average.
        steps: length of the training.
        seed: of every draw.
        prepare: (batch as it is read, key) -> what the loss gets.
        accumulate: number of parts of the batch, which are computed one after the other and whose
            gradients are averaged: less memory for the same update. Every part draws its own
            noise, and batch statistics are those of a part.
    """

    def gradient(params: Any, rest: Any, inputs: Any, labels: Array, key: Array, step: Array):
        def objective(params: Any):
            return loss({"params": params, **rest}, inputs, labels, key, step / steps)

        (value, (metrics, updated)), grads = jax.value_and_grad(objective, has_aux=True)(params)
        return (grads, {"loss": value, **metrics}), {**rest, **updated}

    def accumulated(params: Any, rest: Any, inputs: Any, labels: Array, key: Array, step: Array):
        def split(x: Array) -> Array:  # every n-th row, so that a device's rows stay its own
            return jnp.swapaxes(x.reshape(-1, accumulate, *x.shape[1:]), 0, 1)

        def part(carry: Any, xs: Any):
            total, rest = carry
            i, inputs, labels = xs
            found, rest = gradient(params, rest, inputs, labels, jax.random.fold_in(key, i), step)
            return (jax.tree.map(jnp.add, total, found), rest), None

        parts = (jnp.arange(accumulate), *jax.tree.map(split, (inputs, labels)))
        first = jax.tree.map(lambda x: x[0], parts[1:])
        shapes, _ = jax.eval_shape(gradient, params, rest, *first, key, step)
        zeros = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), shapes)
        (total, rest), _ = jax.lax.scan(part, (zeros, rest), parts)
        return jax.tree.map(lambda x: x / accumulate, total), rest

    def update(state: TrainState, batch: Array, labels: Array):
        # The step makes every draw its own, so a restart continues the same stream.
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), 1), state.step)
        key_prepare, key_loss = jax.random.split(key)
        inputs = jax.tree.map(materialize, prepare(batch, key_prepare))
        params = state.variables["params"]
        rest = {name: v for name, v in state.variables.items() if name != "params"}
        compute = gradient if accumulate == 1 else accumulated
        (grads, metrics), rest = compute(params, rest, inputs, labels, key_loss, state.step)
        updates, opt_state = optimizer.update(grads, state.opt_state, params)
        variables = {"params": optax.apply_updates(params, updates), **rest}
        decay = jnp.minimum(ema_decay, (1.0 + state.step) / (10.0 + state.step))
        ema = jax.tree.map(lambda e, v: e + (1 - decay) * (v - e), state.ema, variables)
        metrics = {"grad_norm": optax.tree.norm(grads), **metrics}
        return TrainState(state.step + 1, variables, ema, opt_state), metrics

    return update
