"""Steps of AC-RE's attack: a signed gradient, of a fixed length or sized to meet the target."""

import flax.struct
import jax
import jax.numpy as jnp

Array = jax.Array

_DAMPING = 0.7
_FIRST_STEP = 32 / 255  # the longest, until a prediction has come true


@flax.struct.dataclass
class Reach:
    """How long a sized step may be: twice as long each time that the linearisation has held.

    Attributes:
        limit: of the next step, in [0, 1] pixel units.
        y: the prediction before the last step, NaN before the first.
        promised: the change of it that the last step was to bring, to first order.
    """

    limit: Array
    y: Array
    promised: Array

    @classmethod
    def start(cls) -> "Reach":
        """Return the reach of a search that has made no step yet."""
        return cls(*(jnp.full((), value) for value in (_FIRST_STEP, jnp.nan, 0.0)))

    def after(self, y: Array) -> "Reach":
        """Return the reach after the prediction that the last step has led to.

        Half to one and a half of the promised change lets the next step go twice as far, 1 at
        most; anything else, such as the wide stairs of a rounding regressor, as far as the first.
        """
        held = jnp.abs(y - self.y - self.promised) <= 0.5 * jnp.abs(self.promised)
        return self.replace(limit=jnp.where(held, jnp.minimum(2 * self.limit, 1), _FIRST_STEP), y=y)


def pgd_update(
    x_adv: Array, gradient: Array, step_size: float | Array, gradient_floor: float = 0.0
) -> Array:
    """One signed gradient step, projected onto [0, 1] (the paper's ball never binds).

    The sign moves every value equally far, however little it matters: background that hardly
    moves the prediction drifts as fast as the subject, and refinement then finds nothing to keep.
    A floor holds the values still whose gradient is small beside the largest one.

    Args:
        x_adv: [H, W, C] in [0, 1].
        gradient: d loss / d x_adv.
        step_size: in [0, 1] pixel units.
        gradient_floor: share of the largest absolute gradient; 0 moves everything.
    """
    size = jnp.abs(gradient)
    direction = jnp.where(size >= gradient_floor * size.max(), jnp.sign(gradient), 0)
    return jnp.clip(x_adv - step_size * direction, 0, 1)


def sized_update(
    x_adv: Array,
    gradient: Array,
    loss: Array,
    largest_step: float | Array,
    gradient_floor: float | Array,
) -> Array:
    """One signed step, as long as the linearised prediction needs to meet the target.

        x' <- clip(x' + s m, 0, 1),   s = min(0.7 |aim - y^| / sum |g m|, largest_step).

    m is the sign step of the values that matter (`gradient_floor`) and can still move, g the
    prediction's gradient. 0.7 damps what F_tau's noise would make too long.

    Args:
        x_adv: [H, W, C] in [0, 1].
        gradient: of the loss, 2 (y^ - aim) g.
        loss: (y^ - aim)^2.
        largest_step: in [0, 1] pixel units, see `Reach`.
        gradient_floor: share of the largest absolute gradient; 0 moves everything.
    """
    size = jnp.abs(gradient)
    free = jnp.where(gradient < 0, x_adv < 1, x_adv > 0) & (size >= gradient_floor * size.max())
    change = jnp.sum(size * free)  # of the loss, per unit of the step
    length = _DAMPING * 2 * loss / jnp.where(change > 0, change, 1)
    return jnp.clip(x_adv - jnp.minimum(length, largest_step) * jnp.sign(gradient) * free, 0, 1)
