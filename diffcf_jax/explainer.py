"""The Python interface: explain arrays of images with any JAX regressor."""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from diffcf_jax.cache import keep_compiled_programs
from diffcf_jax.checkpoint.network import Network, fingerprint
from diffcf_jax.counterfactual.ac_re import ACRE
from diffcf_jax.counterfactual.batching import Engine
from diffcf_jax.counterfactual.events import Event, Finished, Job, Stepped
from diffcf_jax.counterfactual.methods import bind_method, method_options
from diffcf_jax.counterfactual.options import Options
from diffcf_jax.counterfactual.types import Counterfactual
from diffcf_jax.data.masks import check_control, control_masks
from diffcf_jax.errors import UserError
from diffcf_jax.explanation import Explanation, stop_reason
from diffcf_jax.inputs import (
    check_images,
    check_masks,
    check_names,
    check_seed,
    check_targets,
    parse_batch_size,
)
from diffcf_jax.regressors.open import AnyRegressor, held_by, open_regressor
from diffcf_jax.regressors.regressor import Regressor
from diffcf_jax.units import Unit


@dataclasses.dataclass(frozen=True)
class Progress:
    """How far a call of `Explainer.explain` has come.

    Attributes:
        done: finished searches, one per image, target and answer.
        total: all searches.
        successes: finished searches that reach their target.
        distance: mean |prediction - target| of the images in work, in the regressor's unit.
    """

    done: int
    total: int
    successes: int
    distance: float

    def after(self, event: Event) -> "Progress":
        """Return the progress after one more event."""
        if isinstance(event, Finished):
            successes = self.successes + bool(event.counterfactual.success)
            return dataclasses.replace(self, done=self.done + 1, successes=successes)
        if isinstance(event, Stepped) and np.isfinite(event.misses).any():
            distance = float(event.misses[np.isfinite(event.misses)].mean())
            return dataclasses.replace(self, distance=distance)
        return self


class Explainer:
    """Finds counterfactuals of a regressor with a generator and a method.

    Targets, thresholds and results are in the regressor's unit. The object keeps its compiled
    programs: a second call with the same number of images of the same size compiles nothing.

    Args:
        generator: a DDPM for `ACRE`, a Diff-AE for `DiffAERE` and `Hybrid`; see `load_network`.
        regressor: a `Network`; what `load_regressor` returns; a differentiable JAX function from
            images [B, H, W, 3] in [0, 1] to predictions [B]; or `(apply, variables)` with
            predictions `apply(variables, images)`.
        method: `ACRE(...)`, `DiffAERE(...)` or `Hybrid(...)`; its threshold is in the regressor's
            unit.
        refiner: a DDPM for `Hybrid`; the others take none.
        unit: of the regressor. Default: a network's own; for a function, that of its values.
        batch_size: images in work at a time, which changes no result; "auto": as many as fit
            into memory.
        seed: seed of all randomness, 0 to 2^32 - 1.

    Raises:
        UserError: an argument is of the wrong kind or does not fit the others.
    """

    def __init__(
        self,
        generator: Network,
        regressor: AnyRegressor,
        method: Options | None = None,
        *,
        refiner: Network | None = None,
        unit: Unit | None = None,
        batch_size: int | str = 16,
        seed: int = 0,
    ):
        method = ACRE() if method is None else method
        if not isinstance(method, Options):
            raise UserError(f"method={method!r} must be ACRE(...), DiffAERE(...) or Hybrid(...).")
        _check_network(generator, "generator")
        if refiner is not None:
            _check_network(refiner, "refiner")
        batch_size = parse_batch_size(batch_size)
        check_seed(seed)
        keep_compiled_programs()
        self.generator = generator
        self.refiner = refiner
        self.method = method
        self.seed = int(seed)
        self.image_size = int(generator.description["image_size"])
        self.unit, apply, self._variables = open_regressor(regressor, unit, self.image_size)
        self.regressor = regressor
        # The methods see what the network predicts, so that their options mean the same for
        # every label.
        scaled = dataclasses.replace(method, threshold=method.threshold / self.unit.scale)
        self._bound = bind_method(scaled, generator, apply, refiner, held_by(regressor))
        self._engine = Engine(self._bound, self.params, batch_size, self.seed)

    @property
    def answers(self) -> int:
        """Answers per image and target."""
        return self._bound.answers

    @property
    def params(self) -> dict[str, Any]:
        """The variables of all networks."""
        params = {"generator": self.generator.variables, "regressor": self._variables}
        if self.refiner is not None:
            params["refiner"] = self.refiner.variables
        return params

    def explain(
        self,
        images: Any,
        targets: Any,
        names: Sequence[str] | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        masks: Any = None,
        mask_control: str = "",
    ) -> Explanation:
        """Find images near the given ones in which the regressor reads the targets.

        Args:
            images: [B, H, W, 3] floats in [0, 1], of the generator's size.
            targets: what to reach, one for all or [B], in the regressor's unit: a number, a
                `Range` that any prediction inside meets, or "min" or "max", which go as far as
                the iterations allow and never count as a success.
            names: of the images, for files and reports; default: 0000, 0001, ...
            on_progress: called with the `Progress` after every step and every finished image.
            masks: bool [B, H, W], or [H, W] for all, True where an image may change; outside not
                one bit of it does. Default: everywhere.
            mask_control: "inverse" or "random" replaces each mask by one to compare with, see
                `data.masks.control_mask`.

        Returns:
            An `Explanation` in the order of `images`; where the method gives several answers per
            image, they follow each other.

        Raises:
            UserError: an argument does not fit; nothing was computed.
        """
        images = check_images(images, self.image_size)
        targets = check_targets(targets, len(images), self.unit)
        names = check_names(names, len(images))
        masks = check_masks(masks, len(images), self.image_size)
        check_control(mask_control, masks is not None, "mask_control")
        masks = control_masks(masks, mask_control, images, self.seed, names)
        asked = zip(images, targets.tolist(), masks, strict=True)
        jobs = [Job(i, x, target, None, mask) for i, (x, target, mask) in enumerate(asked)]
        finished: dict[tuple[int, int], Finished] = {}
        progress = Progress(0, len(jobs) * self.answers, 0, float("nan"))
        for event in self.stream(jobs, count=len(jobs)):
            if isinstance(event, Finished):
                finished[event.job.id, event.answer] = event
            progress = progress.after(event)
            if on_progress is not None:
                on_progress(progress)
        results = [finished[key] for key in sorted(finished)]
        of = [one.job.id for one in results]
        counterfactuals = [one.counterfactual for one in results]
        result: Counterfactual = jax.tree.map(lambda *rows: np.stack(rows), *counterfactuals)
        return Explanation(
            names=tuple(names[i] for i in of),
            input=images[of],
            target=targets[of],
            answer=np.asarray([one.answer for one in results], np.int32),
            image=result.image,
            reconstruction=result.reconstruction,
            y_initial=result.y_initial,
            y_reconstruction=result.y_reconstruction,
            y_final=result.y_final,
            success=result.success,
            reason=tuple(
                stop_reason(
                    one.counterfactual,
                    one.job.target,
                    self.method.threshold,
                    self.unit,
                    one.answer,
                )
                for one in results
            ),
            iterations=result.iterations,
            seconds=np.asarray([one.seconds for one in results], np.float32),
            curve=result.curve,
            mask=result.mask,
            codes=result.codes,
            config=self.config(),
        )

    def stream(
        self,
        jobs: Iterable[Job],
        count: int | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> Iterator[Event]:
        """Explain any number of images lazily, with everything in the regressor's unit.

        Args:
            jobs: images and targets, read a batch ahead.
            count: number of jobs where it is known.
            check: called after every step; raises where the work is to end, see `Engine.run`.

        Yields:
            `Compiled`, `Stepped` and `Finished` events; every job has a `Finished` per answer.
        """
        unit, originals = self.unit, {}

        def normalised() -> Iterator[Job]:
            for number, job in zip(itertools.count(), jobs, strict=False):
                originals[number] = job
                yield dataclasses.replace(
                    job, id=number, target=unit.normalise_target(job.target), tag=None
                )

        for event in self._engine.run(normalised(), count, check):
            if isinstance(event, Stepped):
                event = dataclasses.replace(event, misses=unit.scale * event.misses)
            elif isinstance(event, Finished):
                number = event.job.id
                event = dataclasses.replace(
                    event,
                    job=originals[number],
                    counterfactual=unit.denormalise_result(event.counterfactual),
                )
                if event.answer == self.answers:
                    del originals[number]
            yield event

    def config(self) -> dict[str, Any]:
        """Everything but the images and targets that decides the results, as plain values."""
        return {
            "method": {"name": self.method.name, **dataclasses.asdict(self.method)},
            "generator": {"kind": self.generator.kind, "image_size": self.image_size},
            "regressor": {"unit": self.unit.name, "mean": self.unit.mean, "scale": self.unit.scale},
            "networks": self.fingerprints(),
            "seed": self.seed,
        }

    def fingerprints(self) -> dict[str, str]:
        """A hash of each network: of its weights, and of what else decides its predictions."""
        found = {
            role: fingerprint(jax.tree.map(np.asarray, variables))
            for role, variables in self.params.items()
        }
        if isinstance(self.regressor, Regressor):
            found["regressor"] = self.regressor.fingerprint()
        return found

    def __repr__(self) -> str:
        return f"Explainer({self.generator!r}, {self.method!r}, seed={self.seed})"


def _check_network(network: Any, argument: str) -> None:
    if not isinstance(network, Network):
        raise UserError(
            f"{argument} is of type {type(network).__name__}; it must be a network: "
            "load_network(DIRECTORY) reads one."
        )


def explain(
    images: Any,
    target: Any,
    *,
    generator: Network,
    regressor: AnyRegressor,
    method: Options | str = "ac-re",
    refiner: Network | None = None,
    unit: Unit | None = None,
    seed: int = 0,
    batch_size: int | str = 16,
    masks: Any = None,
    mask_control: str = "",
    **options: Any,
) -> Explanation:
    """Find counterfactuals in one call: `Explainer(...).explain(images, target)`.

    Args:
        images: see `Explainer.explain`.
        target: see `targets` of `Explainer.explain`.
        generator: see `Explainer`.
        regressor: see `Explainer`.
        method: see `Explainer`; or "ac-re", "diffae-re" or "hybrid" with `options`.
        refiner: see `Explainer`.
        unit: see `Explainer`.
        seed: see `Explainer`.
        batch_size: see `Explainer`.
        masks: see `Explainer.explain`.
        mask_control: see `Explainer.explain`.
        **options: of the method, where it is given by its name.

    Raises:
        UserError: an argument does not fit.
    """
    if isinstance(method, str):
        method = method_options(method, options)
    elif options:
        raise UserError(f"{next(iter(options))} is an option of the method: give it to {method!r}.")
    explainer = Explainer(
        generator,
        regressor,
        method,
        refiner=refiner,
        unit=unit,
        batch_size=batch_size,
        seed=seed,
    )
    return explainer.explain(images, target, masks=masks, mask_control=mask_control)
