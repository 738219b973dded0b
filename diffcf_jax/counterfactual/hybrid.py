"""The hybrid: Diff-AE-RE's change, restricted to the smallest region that carries it.

Diff-AE-RE's search finds a code z in whose image the regressor reads the target. A region of that
image, the smallest that carries nearly the whole change of the prediction, is set into the input,
and z moves on until the regressor reads the target in this composite. Then a DDPM blends the
border of the region, by AC-RE's refinement.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import flax.struct
import jax
import jax.numpy as jnp

from diffcf_jax.checkpoint.network import Network
from diffcf_jax.counterfactual.diffae_re import DiffAERE, DiffAERENewton, DiffAEREState
from diffcf_jax.counterfactual.level_set import Progress
from diffcf_jax.counterfactual.options import (
    COUNT,
    COUNT_OR_ZERO,
    ODD,
    SHARE,
    TEXT,
    OptionError,
    Options,
    option,
)
from diffcf_jax.counterfactual.refinement import dilate, mean_filter, refine
from diffcf_jax.counterfactual.types import (
    Counterfactual,
    Query,
    Regressor,
    Stop,
    advance,
    quantize,
    select,
)
from diffcf_jax.diffusion.sampler import bind
from diffcf_jax.diffusion.schedule import Diffusion
from diffcf_jax.errors import UserError

Array = jax.Array

_HALVINGS = 8  # of the interval in which a region's level lies
_CARE = 0.2  # of the threshold: how close the composite comes; the rest is for the blending


@flax.struct.dataclass
class HybridState:
    """One image on its way.

    Attributes:
        query: what is asked for.
        search: Diff-AE-RE's; its result holds the last composite.
        key: all randomness of this image.
        core: [H, W, 1], 1 where the search's image is shown as it is; before the region is
            located, where the image may change.
        located: whether the region is.
        drift: [2], what the composite and the blended image read when they were last compared; the
            composite is asked for as much more as it read more. 0 before.
        best_miss: |miss| of the best blended image so far.
        progress: of the blended images towards the target.
        stopped: see `types.State`.
        done: see `types.State`.
        result: the best blended image so far.
    """

    query: Query
    search: DiffAEREState
    key: Array
    core: Array
    located: Array
    drift: Array
    best_miss: Array
    progress: Progress
    stopped: Array
    done: Array
    result: Counterfactual


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hybrid(Options):
    """Options of the hybrid: edits as rich as Diff-AE-RE's, in as few pixels as AC-RE's.

    It takes two generators: a Diff-AE, and a DDPM as the refiner.

    Attributes:
        inversion_steps: see `DiffAERE`.
        decode_steps: see `DiffAERE`.
        slide: see `DiffAERE`; it comes before the region is located.
        share: of the change of the prediction that the region has to carry.
        border: a window in pixels, odd. The change is averaged over it to locate the region, and
            the region then grows by half of it: that ring is what the DDPM blends.
        tau: depth of the DDPM's noising, in respaced steps.
        respacing: how its 1000 timesteps are respaced, see `schedule.respaced_timesteps`.
        iterations: steps at most; each takes one gradient.
        threshold: see `Options`; also remat and precision, which hold for both generators.
    """

    name: ClassVar[str] = "hybrid"
    generator_kind: ClassVar[str] = "diffae"
    refiner_kind: ClassVar[str] = "ddpm"

    inversion_steps: int = option(20, COUNT)
    decode_steps: int = option(10, COUNT)
    slide: int = option(3, COUNT_OR_ZERO)
    share: float = option(0.95, SHARE)
    border: int = option(3, ODD)
    tau: int = option(5, COUNT)
    respacing: str = option("50", TEXT)

    def bind(
        self, generator: Network, regressor: Regressor, held: Regressor | None, refiner: Network
    ) -> "HybridMethod":
        """Return the method for a Diff-AE, a regressor (variables, images) -> y, and a DDPM.

        The blending can change any number a little: `held` must be None.
        """
        if held is not None:
            raise UserError(
                f"{self.name} cannot hold outputs: write report in place of hold in output, or use "
                "Diff-AE-RE with its solver newton."
            )
        self._check_kind(generator)
        self._check_kind(refiner, "refiner")
        known = {field.name for field in dataclasses.fields(DiffAERE)}
        shared = {k: v for k, v in dataclasses.asdict(self).items() if k in known}
        return HybridMethod(
            options=self,
            search=DiffAERE(**shared).bind(generator, regressor),
            diffusion=self._process(refiner, "respacing", self.respacing),
            denoiser=self._module(refiner).apply,
        )


@dataclasses.dataclass(frozen=True, eq=False)
class HybridMethod:
    """The hybrid as three pure functions of one image, see `types.Method`.

    Attributes:
        options: the hyper-parameters.
        search: Diff-AE-RE with Newton's steps.
        diffusion: the respaced process of the DDPM.
        denoiser: (variables, x_t [B, H, W, C], t [B]) -> the DDPM's output.

    Raises:
        OptionError: tau is larger than the process is long.
    """

    options: Hybrid
    search: DiffAERENewton
    diffusion: Diffusion
    denoiser: Callable[[Any, Array, Array], Array]
    shares_first_step: ClassVar[bool] = True
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
        """Turns of the decoding loop."""
        return self.search.loop_length

    def init(self, params: Any, query: Query, key: Array) -> HybridState:
        """Starts Diff-AE-RE's search, anywhere in the image."""
        search = self.search.init(params, query, key)
        no = jnp.zeros((), bool)
        return HybridState(
            query=query,
            search=search,
            key=key,
            core=query.allowed,
            located=no,
            drift=jnp.zeros(2, search.result.y_initial.dtype),
            best_miss=jnp.full((), jnp.inf, search.result.y_initial.dtype),
            progress=Progress.start(),
            stopped=no,
            done=no,
            result=search.result,
        )

    def step(self, params: Any, state: HybridState) -> HybridState:
        """One step of the search: in the whole image, later in its region."""
        search = self.search.step(params, state.search.replace(query=self._asked(state)))
        found = search.result
        result = state.result.replace(
            reconstruction=found.reconstruction,
            y_reconstruction=found.y_reconstruction,
            iterations=found.iterations,
            curve=found.curve,
        )
        return advance(state, state.replace(search=search, stopped=search.stopped, result=result))

    def finish(self, params: Any, state: HybridState) -> HybridState:
        """Locates the region, blends its border and reads the result as it would be saved.

        Once the region is located, the search goes on within it. Where the blended image misses
        the target, it goes on again and aims off the target by what the blending changed.
        """
        query, search, found = state.query, state.search, state.search.result
        core = jnp.where(state.located, state.core, self._locate(params, query, found))
        shown = query.replace(allowed=self._region(query, core))
        composite = quantize(shown.inside(found.image))
        key = jax.random.fold_in(state.key, found.iterations)
        blended = self._blend(params, composite, shown.allowed - core, key)
        image = quantize(shown.inside(blended))
        y, y_final = self._read(params, composite), self._read(params, image)

        miss = jnp.abs(query.miss(y_final))
        met = query.met(y_final, self.options.threshold)
        better = met | (miss < state.best_miss) | jnp.isinf(state.best_miss)
        seen = state.result.replace(
            image=image, y_final=y_final, mask=1 - shown.allowed, codes=found.codes
        )
        result = select(better, seen, state.result)
        success = query.met(result.y_final, self.options.threshold)
        progress = state.progress.after(miss)
        used_up = found.iterations >= self.iterations
        narrows = ~state.located & found.success & ~used_up
        ends = ~narrows & (success | ~found.success | used_up | progress.stalled())
        stop = jnp.where(progress.stalled(), Stop.STALLED, Stop.ITERATIONS)
        stop = jnp.where(found.success, stop, found.stop)
        result = result.replace(success=success, stop=jnp.where(success, Stop.TARGET, stop))

        judged = state.replace(
            search=self.search.resume(search, composite, y),
            core=core,
            located=jnp.ones((), bool),
            drift=jnp.where(jnp.isfinite(y_final), jnp.stack([y, y_final]), 0),
            best_miss=jnp.where(better, miss, state.best_miss),
            progress=progress,
            stopped=ends,
            done=ends,
            result=result,
        )
        return select(state.stopped & ~state.done, judged, state)

    def _asked(self, state: HybridState) -> Query:
        """What the search is asked for: in its region, off the target by what blending changes.

        The composite comes closer than the image has to, and in a range as far inside as the
        solver aims.
        """
        query, (composite, blended) = state.query, state.drift
        close = query.aim + _CARE * self.options.threshold * jnp.array([-1, 1])
        close = jnp.where(query.aim[0] < query.aim[1], query.aim, close)
        accept = jnp.where(state.located, close, query.accept)
        return query.replace(
            allowed=self._region(query, state.core),
            accept=accept + composite - blended,
            aim=query.aim + composite - blended,
        )

    def _locate(self, params: Any, query: Query, found: Counterfactual) -> Array:
        """The smallest of the regions {change >= level} that carries its share of the prediction.

        The change is that from the reconstruction, averaged over a window. The level is found by
        bisection; at 0 the region is everything that may change.
        """
        change = jnp.abs(found.image - found.reconstruction).sum(-1, keepdims=True)
        change = mean_filter(change, self.options.border)
        largest = change.max()
        change = change / jnp.where(largest > 0, largest, 1)
        whole = found.y_final - found.y_initial

        def region(level: Array) -> Array:
            return query.allowed * (change >= level)

        def halve(_: Array, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
            low, high = bounds
            level = (low + high) / 2
            image = query.replace(allowed=region(level)).inside(found.image)
            part = (self._read(params, image) - found.y_initial) * jnp.sign(whole)
            carries = part >= self.options.share * jnp.abs(whole)
            return jnp.where(carries, level, low), jnp.where(carries, high, level)

        bounds = jnp.zeros((), change.dtype), jnp.ones((), change.dtype)
        level, _ = jax.lax.fori_loop(0, _HALVINGS, halve, bounds)
        return region(level)

    def _region(self, query: Query, core: Array) -> Array:
        """Where the image differs from the input: the core and what is blended around it."""
        return query.allowed * dilate(core, self.options.border)

    def _blend(self, params: Any, composite: Array, ring: Array, key: Array) -> Array:
        """Regenerates the ring with everything else pinned to the composite, see `refine`."""
        noises = jax.random.normal(key, (2 * self.options.tau, *composite.shape), composite.dtype)
        model = bind(self.denoiser, params["refiner"])
        return refine(self.diffusion, model, composite, composite, 1 - ring, noises)

    def _read(self, params: Any, image: Array) -> Array:
        return self.search.regressor(params["regressor"], image[None])[0]
