"""Diff-AE-RE: counterfactuals in the latent space of a Diff-AE (Ha and Bender, 2025, eq. 10).

The semantic code z moves through the decoding, with the stochastic code x_T held, until the
regressor reads the target in the decoded image. Newton's steps solve for it (`level_set`); the
paper's solver is Adam.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import flax.struct
import jax
import jax.numpy as jnp
import optax

from diffcf_jax.checkpoint.network import Network
from diffcf_jax.counterfactual import level_set
from diffcf_jax.counterfactual.losses import DISTANCES
from diffcf_jax.counterfactual.options import (
    COUNT,
    COUNT_OR_ZERO,
    NOT_NEGATIVE,
    POSITIVE,
    OptionError,
    Options,
    one_of,
    option,
)
from diffcf_jax.counterfactual.types import (
    Counterfactual,
    Query,
    Regressor,
    Stop,
    advance,
    quantize,
    select,
    stop_code,
)
from diffcf_jax.diffusion import sampler
from diffcf_jax.diffusion.schedule import Diffusion

Array = jax.Array


@flax.struct.dataclass
class DiffAEREState:
    """One image on its way.

    Attributes:
        query: what is asked for.
        z_0: its semantic code [D].
        z: the code that is optimised [D].
        x_T: its stochastic code [H, W, C].
        opt_state: the solver's.
        iteration: steps done.
        stopped: see `types.State`.
        done: see `types.State`.
        result: the best image so far.
    """

    query: Query
    z_0: Array
    z: Array
    x_T: Array
    opt_state: Any
    iteration: Array
    stopped: Array
    done: Array
    result: Counterfactual


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiffAERE(Options):
    """Options of Diff-AE-RE: richer edits of the semantic code.

    The defaults are the paper's, but for Newton's solver (`solver="adam"` is the paper's) and the
    inversion (250 steps in the paper, 20 in its code).

    Attributes:
        inversion_steps: DDIM steps from the image to its noise x_T.
        decode_steps: DDIM steps T from x_T to the image.
        solver: "newton" solves for the target, see `level_set`; "adam" is the paper's.
        iterations: steps at most; each takes one gradient.
        slide: Newton's iterations along the level set after the target is met, towards the
            input; the nearest image is kept, see `DiffAERENewton`.
        distance: "l1" or "l2", what a slide makes smaller.
        distance_space: "pixel" for the distance to the input, or "latent" for |z - z_0|.
        learning_rate: Adam's.
        distance_weight: of the distance in Adam's loss, lambda_d.
        answers: that Newton's solver searches per image and target, each orthogonal in z to those
            before.
        threshold: see `Options`; also remat and precision.
    """

    name: ClassVar[str] = "diffae-re"
    generator_kind: ClassVar[str] = "diffae"

    inversion_steps: int = option(20, COUNT)
    decode_steps: int = option(10, COUNT)
    solver: str = option("newton", one_of(("newton", "adam")))
    iterations: int = option(200, COUNT)
    slide: int = option(3, COUNT_OR_ZERO, solver="newton")
    distance: str = option("l2", one_of(tuple(DISTANCES)))
    distance_space: str = option("pixel", one_of(("latent", "pixel")))
    learning_rate: float = option(0.002, POSITIVE, solver="adam")
    distance_weight: float = option(0.0, NOT_NEGATIVE, solver="adam")
    answers: int = option(1, COUNT, solver="newton")

    def bind(
        self, generator: Network, regressor: Regressor, held: Regressor | None = None
    ) -> "DiffAEREMethod":
        """Return the method for a Diff-AE and a regressor (variables, images) -> predictions.

        `held`, (variables, images) -> [B, K], are numbers to keep; only Newton's solver can.
        """
        if held is not None and self.solver != "newton":
            raise OptionError(f"solver={self.solver!r} cannot hold outputs: use newton, or report.")
        self._check_kind(generator)
        module = self._module(generator)
        method = DiffAERENewton if self.solver == "newton" else DiffAEREMethod
        return method(
            options=self,
            encode=lambda v, x: module.apply(v, x, method="encode"),
            predict=lambda v, x_t, t, z: module.apply(v, x_t, t, z, method="predict"),
            inversion=self._process(generator, "inversion_steps", f"ddim{self.inversion_steps}"),
            decoding=self._process(generator, "decode_steps", f"ddim{self.decode_steps}"),
            regressor=regressor,
            optimizer=optax.adam(self.learning_rate),
            held=held,
        )


@dataclasses.dataclass(frozen=True, eq=False)
class DiffAEREMethod:
    """Diff-AE-RE with the paper's solver, as three pure functions of one image.

    See `types.Method`.

    Attributes:
        options: the hyper-parameters.
        encode: (variables, x [B, H, W, C] in [-1, 1]) -> z_sem [B, D].
        predict: (variables, x_t, t [B], z_sem) -> the noise in x_t.
        inversion: the process of the inversion.
        decoding: the process of the decoding.
        regressor: (variables, images) -> predictions.
        optimizer: of z.
        held: (variables, images) -> [B, K], what Newton's solver keeps; None: nothing.
    """

    options: DiffAERE
    encode: Callable[[Any, Array], Array]
    predict: Callable[[Any, Array, Array, Array], Array]
    inversion: Diffusion
    decoding: Diffusion
    regressor: Regressor
    optimizer: optax.GradientTransformation
    held: Regressor | None = None
    shares_first_step: ClassVar[bool] = False
    answers: ClassVar[int] = 1

    @property
    def iterations(self) -> int:
        """Steps at most."""
        return self.options.iterations

    @property
    def loop_length(self) -> int:
        """Turns of the decoding loop."""
        return self.decoding.num_timesteps

    def init(self, params: Any, query: Query, key: Array) -> DiffAEREState:
        """Encodes the input into z_sem and x_T. The method draws no random number.

        The first step decodes them as they are: its image is the reconstruction.
        """
        del key
        image, saved = query.image, quantize(query.image)
        z = self.encode(params["generator"], (2 * image - 1)[None])[0]
        x_T = self.invert(params, image, z)
        # One call, because a large regressor takes seconds to compile.
        y_initial, y_final = jax.vmap(lambda image: self._read(params, image))(
            jnp.stack([image, saved])
        )
        result = Counterfactual(
            image=saved,
            reconstruction=saved,
            y_initial=y_initial,
            y_reconstruction=y_initial,
            y_final=y_final,
            success=jnp.zeros((), bool),
            stop=jnp.full((), Stop.ITERATIONS, jnp.int32),
            iterations=jnp.zeros((), jnp.int32),
            curve=jnp.full((self.iterations,), jnp.nan, y_initial.dtype),
            mask=1 - query.allowed,
            codes=jnp.stack([z, z]),
        )
        return DiffAEREState(
            query=query,
            z_0=z,
            z=z,
            x_T=x_T,
            opt_state=self.optimizer.init(z),
            iteration=jnp.zeros((), jnp.int32),
            stopped=jnp.zeros((), bool),
            done=jnp.zeros((), bool),
            result=result,
        )

    def step(self, params: Any, state: DiffAEREState) -> DiffAEREState:
        """One step of the optimiser; an image that meets the criterion is kept as it is.

        The gradient is that of the decoded image, the criterion judges it as it would be saved:
        z then never meets the rounding to 8 bits, and its path depends on no grey value's side.
        """
        _, image, gradient = self.latent_gradient(params, state)
        image = quantize(image)
        y_hat = self._read(params, image)
        updates, opt_state = self.optimizer.update(gradient, state.opt_state, state.z)
        hit = state.query.met(y_hat, self.options.threshold)
        # From what is not finite no step leads back: the image is given up, as the best so far.
        no_prediction = ~jnp.isfinite(y_hat)
        lost = no_prediction | (~jnp.isfinite(gradient).all() & ~hit)
        first = state.iteration == 0
        better = self._as_near(state, y_hat)
        codes = jnp.stack([state.z_0, state.z])
        seen = state.result.replace(image=image, y_final=y_hat, success=hit, codes=codes)
        stop = jnp.where(hit, Stop.TARGET, state.result.stop)
        result = select(better | first, seen, state.result).replace(
            stop=jnp.where(lost, stop_code(no_prediction), stop),
            reconstruction=jnp.where(first, image, state.result.reconstruction),
            y_reconstruction=jnp.where(first, y_hat, state.result.y_reconstruction),
            curve=state.result.curve.at[state.iteration].set(y_hat),
            iterations=state.iteration + 1,
        )
        stay = hit | lost
        moved = state.replace(
            z=jnp.where(stay, state.z, state.z + updates),
            opt_state=select(stay, state.opt_state, opt_state),
            iteration=state.iteration + 1,
            stopped=stay | (state.iteration + 1 >= self.iterations),
            result=result,
        )
        return advance(state, moved)

    def finish(self, params: Any, state: DiffAEREState) -> DiffAEREState:
        """Accepts: `step` reads the image as it is saved, so there is nothing left to judge."""
        del params
        return state.replace(done=state.stopped)

    def latent_gradient(self, params: Any, state: DiffAEREState) -> tuple[Array, Array, Array]:
        """Loss (eq. 10), the decoded image [H, W, C] in [0, 1], and the gradient in z.

        `miss(y^)^2 + lambda_d |z - z_0|_p`, or `|x - x'|_p` in pixel space.
        """

        def loss(z: Array) -> tuple[Array, Array]:
            image = state.query.inside(self.render(params, z, state.x_T))
            y_hat = self._read(params, image)
            difference = (
                z - state.z_0
                if self.options.distance_space == "latent"
                else image - state.query.image
            )
            value = jnp.square(state.query.miss(y_hat))
            value = value + self.options.distance_weight * DISTANCES[self.options.distance](
                difference
            )
            return value, image

        (value, image), gradient = jax.value_and_grad(loss, has_aux=True)(state.z)
        return value, image, gradient

    def invert(self, params: Any, image: Array, z: Array) -> Array:
        """The stochastic code x_T [H, W, C] of an image in [0, 1] with the semantic code z."""
        return sampler.invert(self.inversion, self._model(params, z), 2 * image - 1)

    def render(self, params: Any, z: Array, x_T: Array) -> Array:
        """Decodes z and x_T into an image [H, W, C] in [0, 1]."""
        remat = self.options.remat != "none"
        return sampler.decode(self.decoding, self._model(params, z), x_T, remat) / 2 + 0.5

    @staticmethod
    def _as_near(state: DiffAEREState, y: Array) -> Array:
        """Whether a prediction misses by no more than that of the best image so far."""
        return jnp.abs(state.query.miss(y)) <= jnp.abs(state.query.miss(state.result.y_final))

    def _model(self, params: Any, z: Array) -> sampler.Model:
        return sampler.bind(self.predict, params["generator"], z)

    def _read(self, params: Any, image: Array) -> Array:
        return self.regressor(params["regressor"], image[None])[0]


@flax.struct.dataclass
class NewtonState:
    """What Newton's solver remembers, `DiffAEREState.opt_state`.

    Attributes:
        search: for the level set.
        merit: of the image that is kept, infinite until one meets the target.
        slid: iterations since the target was met.
        read: whether the reconstruction has been read.
        gradient: of the prediction for it [D].
        earlier: [answers - 1, D], orthonormal, what earlier answers have changed; else 0.
        others: [K] what is held reads in the reconstruction; None: nothing is held.
        rows: its gradients there [K, D].
    """

    search: level_set.LevelSetState
    merit: Array
    slid: Array
    read: Array
    gradient: Array
    earlier: Array
    others: Array | None = None
    rows: Array | None = None


@flax.struct.dataclass
class Reading:
    """What one iteration computes at z; the rest of a step is cheap.

    Attributes:
        image: as it would be saved [H, W, C].
        y: the prediction for it.
        distance: D, from the input.
        gradient: of y [D], where `fresh`.
        slope: of D [D], where `sloped`.
        fresh: whether y's gradient was taken.
        sloped: whether D's was.
        others: [K] what is held reads; None: nothing is held.
        rows: its gradients [K, D].
    """

    image: Array
    y: Array
    distance: Array
    gradient: Array
    slope: Array
    fresh: Array
    sloped: Array
    others: Array | None
    rows: Array | None


class DiffAERENewton(DiffAEREMethod):
    """Diff-AE-RE with Newton's steps for z, see `level_set`.

    Every iteration takes one gradient through the decoding: the prediction's until the target is
    met, from there on the distance's and the prediction's in turns. Of the images that meet the
    target the one is kept with the smallest D + 2 |price (target - y)|, the price being dD/dy along
    the shortest step: the threshold's near edge is no bargain. Each number that is held costs one
    more gradient through the decoding in every iteration.

    A further answer moves orthogonally to the changes of z of the answers before.
    """

    shares_first_step: ClassVar[bool] = True

    @property
    def answers(self) -> int:
        """Answers per image and target."""
        return self.options.answers

    def init(self, params: Any, query: Query, key: Array) -> DiffAEREState:
        """Encodes the input, as the paper's solver does."""
        state = super().init(params, query, key)
        z = state.z
        others = rows = None
        if self.held is not None:
            others = jnp.zeros_like(self._others(params, query.image))
            rows = jnp.zeros((len(others), *z.shape), z.dtype)
        solver = NewtonState(
            search=level_set.start(z),
            merit=jnp.full((), jnp.inf),
            slid=jnp.zeros((), jnp.int32),
            read=jnp.zeros((), bool),
            gradient=jnp.zeros_like(z),
            earlier=jnp.zeros((self.answers - 1, *z.shape), z.dtype),
            others=others,
            rows=rows,
        )
        return state.replace(opt_state=solver)

    def another(self, start: DiffAEREState, found: DiffAEREState) -> DiffAEREState:
        """The same search once more, orthogonal to the change of z that it has found."""
        earlier = start.opt_state.earlier
        change = found.result.codes[1] - start.z_0
        change = change - (earlier @ change) @ earlier
        size = jnp.linalg.norm(change)
        change = change / jnp.where(size > 0, size, 1)
        earlier = jnp.concatenate([change[None], earlier])[: len(earlier)]
        return start.replace(opt_state=start.opt_state.replace(earlier=earlier))

    def resume(self, state: DiffAEREState, image: Array, y: Array) -> DiffAEREState:
        """The search goes on from z for another query, and ends where it is met, without a slide.

        Args:
            state: of the search.
            image: what is kept until a better one is found.
            y: the prediction in it.
        """
        result = state.result.replace(
            image=image,
            y_final=y,
            success=jnp.zeros((), bool),
            stop=jnp.full_like(state.result.stop, Stop.ITERATIONS),
        )
        newton = state.opt_state
        newton = newton.replace(
            search=level_set.start(state.z),
            merit=jnp.full_like(newton.merit, jnp.inf),
            slid=jnp.full_like(newton.slid, self.options.slide),
        )
        return state.replace(opt_state=newton, stopped=jnp.zeros((), bool), result=result)

    def step(self, params: Any, state: DiffAEREState) -> DiffAEREState:
        """One step onto the level set, or along it; ends `slide` iterations after the target.

        The first call only reads the reconstruction, which is the same for every target. A search
        also ends where the gradient is 0, and where it no longer comes closer.
        """
        newton = state.opt_state
        latent = jnp.asarray(self.options.distance_space == "latent")
        reconstruction = Reading(
            image=state.result.reconstruction,
            y=state.result.y_reconstruction,
            distance=jnp.zeros_like(newton.merit),
            gradient=newton.gradient,
            slope=jnp.zeros_like(state.z),
            fresh=jnp.ones((), bool),
            sloped=latent,
            others=newton.others,
            rows=newton.rows,
        )
        begins = newton.read & (state.iteration == 0)
        begun = select(begins, self._after(state, reconstruction), state)
        reading = self._look(params, begun)
        first = state.replace(
            opt_state=newton.replace(
                read=jnp.ones((), bool),
                gradient=reading.gradient,
                others=reading.others,
                rows=reading.rows,
            ),
            result=state.result.replace(reconstruction=reading.image, y_reconstruction=reading.y),
        )
        return select(newton.read | state.stopped, self._after(begun, reading), first)

    def _look(self, params: Any, state: DiffAEREState) -> Reading:
        """Decodes z, reads the image, and takes one gradient of either y or D."""
        norm, query, newton = DISTANCES[self.options.distance], state.query, state.opt_state
        image, pullback = jax.vjp(
            lambda z: query.inside(self.render(params, z, state.x_T)), state.z
        )
        saved = quantize(image)
        y = self._read(params, saved)
        toward = jax.grad(lambda image: self._read(params, image))(image)
        if self.options.distance_space == "latent":
            fresh = sloped = jnp.ones((), bool)
            (gradient,) = pullback(toward)
            distance, slope = jax.value_and_grad(norm)(state.z - state.z_0)
        else:
            met = query.met(y, self.options.threshold)
            sloped = newton.read & (jnp.isfinite(newton.merit) | met) & ~newton.search.sloped
            fresh = ~sloped
            distance, away = jax.value_and_grad(norm)(image - query.image)
            (gradient,) = pullback(jnp.where(sloped, away, toward))
            slope = gradient
        others, rows = self._held(params, saved, image, pullback)
        return Reading(saved, y, distance, gradient, slope, fresh, sloped, others, rows)

    def _after(self, state: DiffAEREState, reading: Reading) -> DiffAEREState:
        """The state after an iteration that has read this."""
        newton, y = state.opt_state, reading.y
        miss = state.query.miss(y)
        met = state.query.met(y, self.options.threshold)
        found = jnp.isfinite(newton.merit)  # the target was met before
        gradient = level_set.outside(newton.earlier, reading.gradient)
        slope = level_set.outside(newton.earlier, reading.slope)
        onward, search, price = level_set.move(
            newton.search, state.z, state.z_0, y, miss, gradient, reading.fresh, slope,
            reading.sloped, met, self._holding(newton, reading),
        )  # fmt: skip

        first = state.iteration == 0
        value = reading.distance + 2 * jnp.abs(price * miss)
        nearer = jnp.where(met, value < newton.merit, ~found & self._as_near(state, y)) | first
        slid = newton.slid + found
        over = (slid >= self.options.slide) | first
        ends = jnp.where(found | met, over, search.progress.stalled())
        no_prediction = ~jnp.isfinite(y)
        lost = no_prediction | ~jnp.isfinite(gradient).all()
        flat = ~found & ~met & (gradient == 0).all()
        stop = jnp.where(ends & ~(found | met), Stop.STALLED, state.result.stop)
        stop = jnp.where(flat, Stop.FLAT, stop)
        stop = jnp.where(lost, stop_code(no_prediction), stop)
        stop = jnp.where(found | met, Stop.TARGET, stop)
        codes = jnp.stack([state.z_0, state.z])
        seen = state.result.replace(image=reading.image, y_final=y, success=met, codes=codes)
        result = select(nearer, seen, state.result).replace(
            stop=stop,
            curve=state.result.curve.at[state.iteration].set(y),
            iterations=state.iteration + 1,
        )
        ends = ends | lost | flat
        moved = state.replace(
            z=jnp.where(ends, state.z, onward),
            opt_state=newton.replace(
                search=search,
                merit=jnp.where(met, jnp.minimum(value, newton.merit), newton.merit),
                slid=slid,
            ),
            iteration=state.iteration + 1,
            stopped=ends | (state.iteration + 1 >= self.iterations),
            result=result,
        )
        return advance(state, moved)

    def _held(
        self, params: Any, saved: Array, image: Array, pullback: Callable[..., Any]
    ) -> tuple[Array | None, Array | None]:
        """What the numbers that are held read in an image [K], and their gradients in z [K, D]."""
        if self.held is None:
            return None, None
        others = self._others(params, saved)
        _, of_image = jax.vjp(lambda image: self._others(params, image), image)
        # One after the other: together they would need the memory of the decoding K times.
        return others, jax.lax.map(lambda row: pullback(*of_image(row))[0], jnp.eye(len(others)))

    def _holding(self, newton: NewtonState, reading: Reading) -> level_set.Held | None:
        """What a step must not change: what is held, and what earlier answers have changed."""
        if reading.rows is None:
            return None
        gaps = jnp.concatenate([newton.others - reading.others, jnp.zeros(self.answers - 1)])
        return level_set.Held.of(jnp.concatenate([reading.rows, newton.earlier]), gaps)

    def _others(self, params: Any, image: Array) -> Array:
        return self.held(params["regressor"], image[None])[0]
