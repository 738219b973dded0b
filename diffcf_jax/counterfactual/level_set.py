"""Steps that solve for a number: onto the level set {z : y(z) = target}, and along it.

A regressor's counterfactual has to meet one value, and the linearised problem has a closed
solution. With g the gradient of y and m the miss, target - y,

    z+ = z + m g / |g|^2 - eta (I - g g^T / |g|^2) dD/dz.

The first term is Newton's, the shortest step that meets the target to first order; the second
slides along the level set towards the input, as a distance D measures it. No step needs a rate:
eta is the inverse of D's curvature along the last slide (Barzilai and Borwein, 1988).

Other numbers h(z) can be held at h_0: with H their gradients and P = I - H^+ H, the step is the
shortest that solves both linearised equations, g . s = m and H s = h_0 - h,

    s = b + (m - g . b) P g / |P g|^2,   b = H^+ (h_0 - h),

and the slide is projected by P as well.
"""

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Scalar

Vector = Float[Array, "code"]

_FIRST_STEP = 0.25  # of a step onto the level set at most, as a share of |z_0|
_NEXT_STEP = 0.5  # of later ones, as a share of the way come, |z - z_0|
_LARGEST_SLIDE = 0.2  # of |z - z_0|
_PATIENCE = 8  # iterations without progress
_DEPENDENT = 1e-3  # of the largest eigenvalue: gradients closer than that are one


@flax.struct.dataclass
class Progress:
    """Whether a search still comes closer to its target.

    Attributes:
        first: |miss| at the start.
        best: the smallest |miss| that counted as progress.
        since: iterations since then.
    """

    first: Float[Scalar, ""]
    best: Float[Scalar, ""]
    since: Int[Scalar, ""]

    @classmethod
    def start(cls) -> "Progress":
        """Return the progress of a search that has read nothing yet."""
        infinite = jnp.full((), jnp.inf)
        return cls(infinite, infinite, jnp.zeros((), jnp.int32))

    def after(self, miss: Float[Scalar, ""]) -> "Progress":
        """Return the progress after one more prediction, off the target by `miss`.

        Half of the miss counts as progress, and so does a hundredth of the way come so far.
        """
        size = jnp.abs(miss)
        first = jnp.where(jnp.isinf(self.first), size, self.first)
        come = jnp.where(jnp.isinf(self.best), 0.0, first - self.best)
        closer = (self.best - size > 0.01 * come) | (size < 0.5 * self.best)
        return Progress(
            first, jnp.where(closer, size, self.best), jnp.where(closer, 0, self.since + 1)
        )

    def stalled(self, patience: int = _PATIENCE) -> Bool[Scalar, ""]:
        """Whether that many iterations have brought nothing."""
        return self.since >= patience


def newton_step(gradient: Vector, miss: Float[Scalar, ""], largest: Float[Scalar, ""]) -> Vector:
    """The shortest step that changes y by `miss` to first order: m g / |g|^2, at most `largest`.

    0 where the gradient is 0.
    """
    size = jnp.linalg.norm(gradient)
    direction = gradient / jnp.where(size > 0, size, 1)
    length = jnp.where(size > 0, miss / jnp.where(size > 0, size, 1), 0)
    return jnp.clip(length, -largest, largest) * direction


def tangent(vector: Vector, gradient: Vector) -> Vector:
    """The part of a vector that does not change y to first order: (I - g g^T / |g|^2) v."""
    size = jnp.linalg.norm(gradient)
    direction = gradient / jnp.where(size > 0, size, 1)
    return vector - jnp.vdot(vector, direction) * direction


@flax.struct.dataclass
class Held:
    """Numbers h of z that a search keeps where they are.

    Attributes:
        rows: H [K, D], the gradient of each, of length one.
        dual: the rows' pseudo-inverse [K, D], transposed: P v = v - dual^T (rows v).
        back: H^+ (h_0 - h) [D], the shortest step that brings all of them back.
    """

    rows: Float[Array, "held code"]
    dual: Float[Array, "held code"]
    back: Vector

    @classmethod
    def of(cls, gradients: Float[Array, "held code"], gaps: Float[Array, " held"]) -> "Held":
        """Return what holds numbers with these gradients, which are off by `gaps` = h_0 - h.

        A number whose gradient is 0, or nearly a combination of the others', holds nothing.
        """
        sizes = jnp.linalg.norm(gradients, axis=1, keepdims=True)
        safe = jnp.where(sizes > 0, sizes, 1)
        rows = gradients / safe
        dual = jnp.linalg.pinv(rows @ rows.T, rtol=_DEPENDENT, hermitian=True) @ rows
        return cls(rows, dual, (gaps / safe[:, 0]) @ dual)

    def project(self, vector: Vector) -> Vector:
        """The part of a vector that does not change h to first order, P v."""
        return vector - (self.rows @ vector) @ self.dual


def _bounded(step: Vector, largest: Float[Scalar, ""]) -> Vector:
    size = jnp.linalg.norm(step)
    return step * jnp.minimum(1, largest / jnp.where(size > 0, size, 1))


def outside(basis: Float[Array, "n code"], vector: Vector) -> Vector:
    """The part of a vector outside the span of orthonormal rows: (I - B^T B) v.

    0 where less than a thousandth is left, which rounding would decide.
    """
    if not len(basis):
        return vector
    rest = vector - (basis @ vector) @ basis
    enough = jnp.linalg.norm(rest) > 1e-3 * jnp.linalg.norm(vector)
    return jnp.where(enough | ~jnp.isfinite(vector).all(), rest, 0)


def secant_gradient(gradient: Vector, step: Vector, change: Float[Scalar, ""]) -> Vector:
    """The gradient nearest to the given one that explains what y did along a step (Broyden, 1965).

    g + (change - g . step) step / |step|^2.
    """
    squared = jnp.vdot(step, step)
    correction = (change - jnp.vdot(gradient, step)) / jnp.where(squared > 0, squared, 1)
    return gradient + correction * step


@flax.struct.dataclass
class LevelSetState:
    """What a search for z remembers.

    Attributes:
        z: the last point that was accepted.
        y: the prediction there.
        miss: target - y there.
        gradient: of y there, kept up to date by a secant where D's gradient was asked for.
        slid_from: where D's gradient was last seen.
        slope: D's gradient there.
        known: whether it has been seen.
        sloped: whether the last iteration saw it.
        progress: towards the target.
        radius: of the step towards the target at most. Infinite until a step has failed; then what
            that step was cut to, and twice as much after each one that has not.
    """

    z: Vector
    y: Float[Scalar, ""]
    miss: Float[Scalar, ""]
    gradient: Vector
    slid_from: Vector
    slope: Vector
    known: Bool[Scalar, ""]
    sloped: Bool[Scalar, ""]
    progress: Progress
    radius: Float[Scalar, ""]


def start(z: Vector) -> LevelSetState:
    """Return the state of a search that begins at z."""
    nothing, infinite = jnp.zeros_like(z), jnp.full((), jnp.inf, z.dtype)
    no = jnp.zeros((), bool)
    progress = Progress.start()
    return LevelSetState(
        z, infinite, infinite, nothing, z, nothing, no, no, progress, radius=infinite
    )


def move(
    state: LevelSetState,
    z: Vector,
    z_0: Vector,
    y: Float[Scalar, ""],
    miss: Float[Scalar, ""],
    gradient: Vector,
    fresh: Bool[Scalar, ""],
    slope: Vector,
    sloped: Bool[Scalar, ""],
    met: Bool[Scalar, ""],
    held: Held | None = None,
) -> tuple[Vector, LevelSetState, Float[Scalar, ""]]:
    """One iteration: from a point and what was read there to the next point.

    A point past the target, or far worse than the one before, is taken back part of the way: to
    the secant's zero, or by three quarters where the prediction went the wrong way. What is near
    the start is still an image; far away the gradient can mislead. After that the steps stay as
    short, and double with every one that does not fail (a trust region).

    Args:
        state: of the search.
        z: the point that was read.
        z_0: where the search began.
        y: the prediction at z.
        miss: target - y.
        gradient: of y at z, where `fresh`.
        fresh: whether there is one; else the secant's serves.
        slope: the distance's gradient at z, where `sloped`.
        sloped: whether there is one; only then the search slides.
        met: y meets the target.
        held: what is to stay as it is, at z; None: nothing.

    Returns:
        The next point, the state, and the price: by how much the distance grows per unit of y,
        0 before the first slope.
    """
    first = jnp.isinf(state.y)
    step = z - state.z
    change = jnp.where(first, 0.0, y - state.y)
    gradient = jnp.where(fresh, gradient, secant_gradient(state.gradient, step, change))
    if held is not None:
        slope = held.project(slope)
    slope = jnp.where(sloped, slope, state.slope)
    toward = gradient if held is None else held.project(gradient)

    squared = jnp.vdot(toward, toward)
    price = jnp.vdot(slope, toward) / jnp.where(squared > 0, squared, 1)
    downhill = tangent(slope, toward)
    length = jnp.linalg.norm(downhill)
    reach = _LARGEST_SLIDE * jnp.linalg.norm(z - z_0) / jnp.where(length > 0, length, 1)
    bend = tangent(slope - state.slope, toward)
    bent = jnp.vdot(bend, bend)
    eta = jnp.abs(jnp.vdot(z - state.slid_from, bend)) / jnp.where(bent > 0, bent, 1)
    eta = jnp.where(state.known & (bent > 0), jnp.minimum(eta, reach), reach)
    eta = jnp.where(sloped, eta, 0)
    most = jnp.where(
        first, _FIRST_STEP * jnp.linalg.norm(z_0), _NEXT_STEP * jnp.linalg.norm(z - z_0)
    )
    most = jnp.minimum(most, state.radius)
    back, left = jnp.zeros_like(z), miss
    if held is not None:
        back = _bounded(held.back, most)
        left = miss - jnp.vdot(gradient, back)
    onward = z + back + newton_step(toward, left, most) - eta * downhill

    past = ~state.known & (miss * state.miss < 0)
    far = jnp.abs(miss) >= 2 * jnp.abs(state.miss)
    worse = ~met & ~first & (past | far)
    zero = jnp.where(change != 0, state.miss / jnp.where(change != 0, change, 1), -1.0)
    share = jnp.where(zero > 0, jnp.clip(zero, 0.1, 0.9), 0.25)
    progress = state.progress.after(miss)
    accepted = LevelSetState(
        z=z,
        y=y,
        miss=miss,
        gradient=gradient,
        slid_from=jnp.where(sloped, z, state.slid_from),
        slope=slope,
        known=state.known | sloped,
        sloped=sloped,
        progress=progress,
        radius=2 * state.radius,
    )
    cut = share * jnp.linalg.norm(step)
    kept = jax.tree.map(
        lambda old, new: jnp.where(worse, old, new),
        state.replace(sloped=sloped, progress=progress, radius=cut),
        accepted,
    )
    return jnp.where(worse, state.z + share * step, onward), kept, price
