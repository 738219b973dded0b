"""AC-RE: adversarial counterfactuals for regression, in pixel space (Ha and Bender, 2025, eq. 9).

x' moves until the regressor reads the target in F_tau(x'), the noised and denoised x'; then the
refinement keeps the original where little changed. Newton's steps are sized to meet the target;
the paper's solver is PGD.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import flax.struct
import jax
import jax.numpy as jnp

from diffcf_jax.checkpoint.network import Network
from diffcf_jax.counterfactual.level_set import Progress
from diffcf_jax.counterfactual.options import (
    COUNT,
    NOT_NEGATIVE,
    ODD,
    POSITIVE,
    SHARE,
    TEXT,
    OptionError,
    Options,
    one_of,
    option,
)
from diffcf_jax.counterfactual.refinement import change_mask, dilate, refine
from diffcf_jax.counterfactual.signed_steps import Reach, pgd_update, sized_update
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
from diffcf_jax.diffusion.sampler import bind, noise_and_denoise
from diffcf_jax.diffusion.schedule import Diffusion
from diffcf_jax.errors import UserError

Array = jax.Array

_PATIENCE = 4  # iterations without progress, after which every image is refined
_GIVE_UP = 24  # iterations without progress, after which the search ends


@flax.struct.dataclass
class ACREState:
    """One image on its way.

    Attributes:
        query: what is asked for.
        x_adv: the attacked image x' [H, W, C].
        drift: [2], what F_tau(x') and the refined image read when they were last compared; F_tau
            is asked for as much more as it read more. 0 before.
        best_miss: |miss| of the best refined image so far.
        key: all randomness of this image.
        keep: [H, W, 1], 1 where the input stays; 0 everywhere before the first refinement.
        progress: of F_tau's predictions towards what it is asked for (Newton).
        late: from here on every image is refined.
        iteration: steps done.
        stopped: see `types.State`.
        done: see `types.State`.
        result: the best image so far.
        newton: what that solver remembers; None with PGD.
    """

    query: Query
    x_adv: Array
    drift: Array
    best_miss: Array
    key: Array
    keep: Array
    progress: Progress
    late: Array
    iteration: Array
    stopped: Array
    done: Array
    result: Counterfactual
    newton: "NewtonState | None" = None


@flax.struct.dataclass
class NewtonState:
    """What Newton's solver remembers.

    Attributes:
        read: whether F_tau(x) has been read, which is the same for every target.
        y: the prediction for it.
        gradient: of that in x [H, W, C].
        reach: how long the next step may be.
    """

    read: Array
    y: Array
    gradient: Array
    reach: Reach


@dataclasses.dataclass(frozen=True, kw_only=True)
class ACRE(Options):
    """Options of AC-RE: sparse edits of pixels.

    The defaults are the paper's for the squares, but for Newton's solver; the paper's solver is
    `solver="pgd", gradient_floor=0`.

    Attributes:
        tau: depth of the noising, in respaced steps.
        respacing: how the 1000 timesteps are respaced, see `schedule.respaced_timesteps`.
        solver: "newton" sizes its steps, see `sized_update`; "pgd" is the paper's.
        iterations: steps at most; each takes one gradient.
        step_size: of PGD, in [0, 1] pixel units.
        gradient_floor: a value moves only where its gradient is at least this share of the
            image's largest one; 0 is the paper's, see `pgd_update`. Newton's steps keep to it
            until the first refinement, whose mask then keeps the edit sparse.
        inpaint: dilated change (0 to 1) below which a pixel is kept.
        dilation: size of the dilation in pixels, odd.
        answers: that Newton's solver searches per image and target, each where those before it
            have kept the input.
        threshold: see `Options`; also remat and precision.
    """

    name: ClassVar[str] = "ac-re"
    generator_kind: ClassVar[str] = "ddpm"

    tau: int = option(5, COUNT)
    respacing: str = option("50", TEXT)
    solver: str = option("newton", one_of(("newton", "pgd")))
    step_size: float = option(2 / 255, POSITIVE, solver="pgd")
    gradient_floor: float = option(0.3, SHARE)
    inpaint: float = option(0.15, NOT_NEGATIVE)
    dilation: int = option(5, ODD)
    answers: int = option(1, COUNT, solver="newton")

    def bind(
        self, generator: Network, regressor: Regressor, held: Regressor | None = None
    ) -> "ACREMethod":
        """Return the method for a DDPM and a regressor (variables, images) -> predictions.

        Steps by signs have no shortest one that holds other numbers: `held` must be None.
        """
        if held is not None:
            raise UserError(
                f"{self.name} cannot hold outputs: write report in place of hold in output, or use "
                "Diff-AE-RE with its solver newton."
            )
        self._check_kind(generator)
        module = self._module(generator)
        diffusion = self._process(generator, "respacing", self.respacing)
        method = ACRENewton if self.solver == "newton" else ACREMethod
        return method(self, diffusion, module.apply, regressor)


@dataclasses.dataclass(frozen=True, eq=False)
class ACREMethod:
    """AC-RE with the paper's solver, as three pure functions of one image.

    See `types.Method`.

    Attributes:
        options: the hyper-parameters.
        diffusion: the respaced process.
        denoiser: (variables, x_t [B, H, W, C], t [B]) -> the network's output.
        regressor: (variables, images) -> predictions.

    Raises:
        OptionError: tau is larger than the process is long.
    """

    options: ACRE
    diffusion: Diffusion
    denoiser: Callable[[Any, Array, Array], Array]
    regressor: Regressor
    shares_first_step: ClassVar[bool] = False
    answers: ClassVar[int] = 1

    def __post_init__(self) -> None:
        tau, steps = self.options.tau, self.diffusion.num_timesteps
        if tau > steps:
            raise OptionError(f"tau={tau} must lie between 1 and {steps} respaced steps.")

    @property
    def iterations(self) -> int:
        """Steps at most."""
        return self.options.iterations

    @property
    def loop_length(self) -> int:
        """Turns of the denoising loop."""
        return self.options.tau

    def init(self, params: Any, query: Query, key: Array) -> ACREState:
        """Starts at the input; the reconstruction is one sample of F_tau(x)."""
        image, saved = query.image, quantize(query.image)
        noises = self._noises(jax.random.fold_in(key, 0), 0, self.options.tau, image)
        reconstruction = jnp.clip(self._denoise(params, image, noises), 0, 1)
        # One call, because a large regressor takes seconds to compile.
        read = jax.vmap(lambda image: self._read(params, image))
        y_initial, y_reconstruction, y_final = read(jnp.stack([image, reconstruction, saved]))
        result = Counterfactual(
            image=saved,
            reconstruction=reconstruction,
            y_initial=y_initial,
            y_reconstruction=y_reconstruction,
            y_final=y_final,
            success=jnp.zeros((), bool),
            stop=jnp.full((), Stop.ITERATIONS, jnp.int32),
            iterations=jnp.zeros((), jnp.int32),
            curve=jnp.full((self.iterations,), jnp.nan, y_initial.dtype),
            mask=jnp.ones_like(image[..., :1]),
        )
        return ACREState(
            query=query,
            x_adv=image,
            drift=jnp.zeros(2, y_initial.dtype),
            best_miss=jnp.full((), jnp.inf, y_initial.dtype),
            key=key,
            keep=jnp.zeros_like(image[..., :1]),
            progress=Progress.start(),
            late=jnp.zeros((), bool),
            iteration=jnp.zeros((), jnp.int32),
            stopped=jnp.zeros((), bool),
            done=jnp.zeros((), bool),
            result=result,
        )

    def step(self, params: Any, state: ACREState) -> ACREState:
        """One PGD step: x' <- clip(x' - step_size sign(d/dx' miss(y^)^2), 0, 1).

        The criterion is tested on the prediction before the update, as in the original, so the
        image that refinement gets has moved one step further. In the last quarter of the iterations
        every image is refined whatever F_tau's sample reads: what can just be reached, such as the
        brightest red, is reached by some refined images and by hardly any sample.
        """
        options = self.options
        y_hat, gradient = self._attack(params, state)
        gradient = -2 * self._asked(state).miss(y_hat) * gradient  # of the loss
        # Once refined it has to come closer, in smaller steps: F_tau is noisy, and a lucky sample
        # is what failed.
        care = jnp.where(state.keep.any(), 0.5, 1.0)
        hit = self._asked(state).met(y_hat, care * options.threshold)
        x_adv = pgd_update(state.x_adv, gradient, care * options.step_size, options.gradient_floor)
        late = 4 * (state.iteration + 1) > 3 * self.iterations
        return self._moved(state, state.replace(x_adv=x_adv, late=late), y_hat, gradient, hit)

    def _attack(self, params: Any, state: ACREState) -> tuple[Array, Array]:
        """y^ and its gradient on noise of this iteration's own, see `prediction_gradient`.

        Where the image may not change, the regressor reads the input and the gradient is 0.
        """
        key, query = jax.random.fold_in(state.key, 1), state.query
        noises = self._noises(key, state.iteration, self.options.tau, query.image)
        free = query.allowed > 0
        keep = jnp.where(free, state.keep, 1)
        y_hat, gradient = self.prediction_gradient(params, state.x_adv, query, noises, keep)
        return y_hat, jnp.where(free, gradient, 0)

    @staticmethod
    def _asked(state: ACREState) -> Query:
        """What F_tau is asked for: the query, off by what refinement changes.

        Once an image was refined, a range counts only as far inside as the solver aims.
        """
        query, (sampled, refined) = state.query, state.drift
        accept = jnp.where(state.keep.any(), query.aim, query.accept)
        return query.replace(accept=accept + sampled - refined, aim=query.aim + sampled - refined)

    def _moved(
        self, state: ACREState, moved: ACREState, y_hat: Array, gradient: Array, hit: Array
    ) -> ACREState:
        """Notes what a step has read, and what ends or refines the image."""
        # From what is not finite no step leads back: the image is given up.
        no_prediction = ~jnp.isfinite(y_hat)
        lost = no_prediction | (~jnp.isfinite(gradient).all() & ~hit)
        flat = (gradient == 0).all() & ~hit
        code = jnp.where(flat, Stop.FLAT, stop_code(no_prediction))
        number = state.iteration + 1
        nothing = no_prediction & jnp.isinf(state.best_miss)
        result = state.result.replace(
            stop=jnp.where(lost | flat, code, state.result.stop),
            curve=state.result.curve.at[state.iteration].set(y_hat),
            iterations=number,
            y_final=jnp.where(nothing, y_hat, state.result.y_final),
        )
        moved = moved.replace(
            iteration=number,
            stopped=hit | moved.late | lost | flat,
            done=lost | flat,
            result=result,
        )
        return advance(state, moved)

    def finish(self, params: Any, state: ACREState) -> ACREState:
        """Refines a stopped image and reads the result as it would be saved.

        If the refined image misses the target, PGD goes on with the mask fixed, on F_tau(x')
        inside it and the input outside. It aims off the target by the difference between what it
        read and what the refined image reads, and has to come twice as close, in half steps.
        """
        query, x = state.query, state.query.image
        dilated = dilate(change_mask(x, state.x_adv), self.options.dilation)
        keep = (dilated < self.options.inpaint).astype(x.dtype)
        keep = jnp.where(state.keep.any(), state.keep, jnp.where(query.allowed > 0, keep, 1))
        noises = self._noises(
            jax.random.fold_in(state.key, 2), state.iteration, 2 * self.options.tau, x
        )
        image = refine(
            self.diffusion,
            bind(self.denoiser, params["generator"]),
            x,
            state.x_adv,
            keep,
            noises,
        )
        image = quantize(query.inside(image))
        y_final = self._read(params, image)
        miss = query.miss(y_final)
        y_hat = state.result.curve[state.iteration - 1]
        refined = state.result.replace(image=image, y_final=y_final, mask=keep)
        result = select(jnp.abs(miss) < state.best_miss, refined, state.result)
        success = query.met(result.y_final, self.options.threshold)
        done = success | (state.iteration >= self.iterations)
        judged = state.replace(
            drift=jnp.stack([y_hat, y_final]),
            best_miss=jnp.minimum(state.best_miss, jnp.abs(miss)),
            keep=keep,
            stopped=done,
            done=done,
            result=result.replace(
                success=success, stop=jnp.where(success, Stop.TARGET, result.stop)
            ),
        )
        return select(state.stopped & ~state.done, judged, state)

    def attack_gradient(
        self, params: Any, x_adv: Array, query: Query, noises: Array, keep: Array
    ) -> tuple[Array, Array, Array]:
        """The squared error of the prediction in F_tau(x') (eq. 9), y^ and the gradient in x'.

        With a mask the regressor reads the input where it is kept: what is left free answers.

        Args:
            params: of generator and regressor.
            x_adv: x' [H, W, C] in [0, 1].
            query: the input and what to read.
            noises: [tau, H, W, C].
            keep: [H, W, 1].

        Returns:
            loss, y^ and d loss / d x'.
        """
        y_hat, gradient = self.prediction_gradient(params, x_adv, query, noises, keep)
        miss = query.miss(y_hat)
        return jnp.square(miss), y_hat, -2 * miss * gradient

    def prediction_gradient(
        self, params: Any, x_adv: Array, query: Query, noises: Array, keep: Array
    ) -> tuple[Array, Array]:
        """y^ = f(F_tau(x')) and its gradient in x', whatever the target; see `attack_gradient`."""

        def prediction(x_adv: Array) -> Array:
            image = keep * query.image + (1 - keep) * self._denoise(params, x_adv, noises)
            return self._read(params, image)

        return jax.value_and_grad(prediction)(x_adv)

    def _denoise(self, params: Any, x: Array, noises: Array) -> Array:
        """F_tau of an image in [0, 1], unclipped as in the original."""
        model = bind(self.denoiser, params["generator"])
        x_0 = noise_and_denoise(
            self.diffusion, model, 2 * x - 1, noises, self.options.remat != "none"
        )
        return x_0 / 2 + 0.5

    def _read(self, params: Any, image: Array) -> Array:
        return self.regressor(params["regressor"], image[None])[0]

    @staticmethod
    def _noises(key: Array, iteration: Array | int, count: int, like: Array) -> Array:
        key = jax.random.fold_in(key, iteration)
        return jax.random.normal(key, (count, *like.shape), like.dtype)


class ACRENewton(ACREMethod):
    """AC-RE with steps that are sized to meet the target, see `sized_update`."""

    shares_first_step: ClassVar[bool] = True

    @property
    def answers(self) -> int:
        """Answers per image and target."""
        return self.options.answers

    def init(self, params: Any, query: Query, key: Array) -> ACREState:
        """Starts at the input, as the paper's solver does."""
        state = super().init(params, query, key)
        newton = NewtonState(
            read=jnp.zeros((), bool),
            y=jnp.zeros_like(state.best_miss),
            gradient=jnp.zeros_like(query.image),
            reach=Reach.start(),
        )
        return state.replace(newton=newton)

    def step(self, params: Any, state: ACREState) -> ACREState:
        """One sized step; where the prediction stalls, every image from there on is refined.

        F_tau draws new noise in each iteration, so that x' suits no draw in particular. The first
        call only reads F_tau(x), which is the same for every target.
        """
        newton = state.newton
        begins = newton.read & (state.iteration == 0)
        begun = select(begins, self._after(state, newton.y, newton.gradient), state)
        y_hat, gradient = self._attack(params, begun)
        first = newton.replace(read=jnp.ones((), bool), y=y_hat, gradient=gradient)
        known = state.replace(newton=first)
        return select(newton.read | state.stopped, self._after(begun, y_hat, gradient), known)

    def another(self, start: ACREState, found: ACREState) -> ACREState:
        """The same search once more, with other noise, where the input was kept before."""
        query = start.query.replace(allowed=start.query.allowed * found.result.mask)
        newton = start.newton.replace(read=jnp.zeros((), bool))
        return start.replace(query=query, key=jax.random.fold_in(start.key, 3), newton=newton)

    def _after(self, state: ACREState, y_hat: Array, gradient: Array) -> ACREState:
        """The state after an iteration that has read this."""
        options = self.options
        asked, care = self._asked(state), jnp.where(state.keep.any(), 0.5, 1.0)
        hit = asked.met(y_hat, care * options.threshold)
        # Once refined, the mask keeps the edit sparse: everything inside of it may move.
        floor = jnp.where(state.keep.any(), 0.0, options.gradient_floor)
        miss, reach = asked.miss(y_hat), state.newton.reach.after(y_hat)
        slope = -2 * miss * gradient  # of the loss
        x_adv = sized_update(state.x_adv, slope, jnp.square(miss), reach.limit, floor)
        reach = reach.replace(promised=jnp.vdot(gradient, x_adv - state.x_adv))
        progress = state.progress.after(miss)
        last = state.iteration + 1 >= self.iterations
        late = state.late | progress.stalled(_PATIENCE) | last
        newton = state.newton.replace(reach=reach)
        moved = state.replace(x_adv=x_adv, progress=progress, late=late, newton=newton)
        return self._moved(state, moved, y_hat, slope, hit)

    def finish(self, params: Any, state: ACREState) -> ACREState:
        """Refines and judges as the paper's solver does; gives up what has long stalled."""
        judged = super().finish(params, state)
        stalled = state.late & state.progress.stalled(_GIVE_UP) & ~judged.done
        progress = select(state.late, state.progress, Progress.start())
        result = judged.result
        stuck = ~result.success & judged.progress.stalled(_PATIENCE) & (stalled | judged.done)
        judged = judged.replace(
            progress=progress,
            stopped=judged.stopped | stalled,
            done=judged.done | stalled,
            result=result.replace(stop=jnp.where(stuck, Stop.STALLED, result.stop)),
        )
        return select(state.stopped & ~state.done, judged, state)
