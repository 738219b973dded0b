"""The tau check of AC-RE: what F_tau does to an image and to its prediction, for every depth."""

import functools
from typing import Any

import jax
import numpy as np
import tqdm

from diffcf_jax.diffusion.sampler import bind, p_sample_loop
from diffcf_jax.diffusion.schedule import Diffusion, q_sample, respace
from diffcf_jax.errors import UserError

from ..page import Finding, Plot, Table
from .subject import Subject

Array = jax.Array


def check_tau(subject: Subject) -> Finding:
    """Measures F_tau(x) against x for tau = 1 to all steps of the respaced process.

    Of every image one draw of F_tau(x) is looked at, with the same noise for every tau.

        shift         mean |r(F_tau(x)) - r(x)|, in the label's unit
        bias          mean  r(F_tau(x)) - r(x)
        pixel_change  mean |F_tau(x) - x|, full range 1

    AC-RE optimises the prediction for F_tau(x'): a tau whose shift is larger than the threshold
    loses the image's own value to noise, and a tau that hardly changes pixels lets adversarial
    patterns through.

    Raises:
        UserError: the config is not one of AC-RE.
    """
    if "tau" not in subject.method:
        raise UserError("config.method has no tau, although the generator is a DDPM.")
    process = respace(subject.diffusion, subject.method.get("respacing", "50"))
    denoised = jax.jit(functools.partial(f_tau, subject.generator.module, process))
    y = subject.read(subject.images)
    key = jax.random.key(subject.seed)
    rows, pictures = [], {}
    shown = _shown(process.num_timesteps, subject.method["tau"])
    for tau in tqdm.trange(1, process.num_timesteps + 1, desc="tau", dynamic_ncols=True):
        images = denoised(subject.generator.variables, subject.images, tau, key)
        images = np.clip(np.asarray(images), 0, 1)
        shift = subject.read(images) - y
        rows.append(
            {
                "tau": tau,
                "timestep": int(process.timesteps[tau - 1]),
                "shift": float(np.abs(shift).mean()),
                "bias": float(shift.mean()),
                "pixel_change": float(np.abs(images - subject.images).mean()),
            }
        )
        if tau in shown:
            pictures[f"tau {tau}"] = images
    threshold = subject.method["threshold"]  # in the label's unit
    within = [row["tau"] for row in rows if row["shift"] <= threshold]
    deepest = _last_of_first_run(within)
    advice = (
        f"Up to tau = {deepest} the prediction shifts by no more than the threshold "
        f"({threshold:.3g}) on average; the config has tau = {subject.method['tau']}."
        if deepest
        else f"Every tau shifts the prediction by more than the threshold ({threshold:.3g}) on "
        f"average; the config has tau = {subject.method['tau']}. Train the DDPM longer."
    )
    limit = _trained_limit(subject.generator.description)
    if limit:
        deep = sum(int(t) < limit for t in process.timesteps)
        advice += (
            f" The DDPM was trained on timesteps below {limit} only: nothing beyond tau = {deep} "
            "means anything."
        )
    unit = f" ({subject.unit.name})" if subject.unit.name else ""

    def curve(name: str) -> list[tuple[float, float]]:
        return [(row["tau"], row[name]) for row in rows]

    plots = [
        Plot(
            f"Shift of the prediction{unit}",
            {"mean |shift|": curve("shift"), "mean shift": curve("bias")},
            "tau",
            level=("threshold", threshold),
            mark=subject.method["tau"],
        ),
        Plot(
            "Change of the pixels",
            {"mean |F_tau(x) - x|": curve("pixel_change")},
            "tau",
            mark=subject.method["tau"],
        ),
    ]
    return Finding(
        name="tau",
        title="What F_tau does, by its depth tau",
        text=advice,
        table=Table.of(rows, [row for row in rows if row["tau"] in shown]),
        plots=plots,
        pictures={"x": subject.images, **pictures},
    )


def f_tau(
    module: Any, process: Diffusion, variables: Any, images: Array, tau: Array, key: Array
) -> Array:
    """F_tau of images in [0, 1] for a tau that is known at run time only.

    The noise of a timestep does not depend on tau. See `diffusion.sampler.noise_and_denoise`.

    Args:
        module: the DDPM.
        process: respaced.
        variables: of the module.
        images: [B, H, W, 3].
        tau: depth in respaced steps.
        key: of the noise.

    Returns:
        [B, H, W, 3], not clipped.
    """

    def noise(t: Array | int) -> Array:
        return jax.random.normal(jax.random.fold_in(key, t), images.shape)

    x_tau = q_sample(process, 2 * images - 1, tau - 1, noise(process.num_timesteps))
    model = bind(module.apply, variables)
    return p_sample_loop(process, model, x_tau, tau, noise) / 2 + 0.5


def _shown(steps: int, chosen: int) -> set[int]:
    """Some depths, closer together where they are small, and the config's."""
    return {chosen, *(int(t) for t in np.unique(np.geomspace(1, steps, 8).round()))}


def _last_of_first_run(taus: list[int]) -> int:
    """How far 1, 2, 3, ... go without a gap; 0 if they do not start."""
    return next((i for i, tau in enumerate(taus) if tau != i + 1), len(taus))


def _trained_limit(description: Any) -> int | None:
    objective = description.get("training", {}).get("objective", {})
    return objective.get("max_timestep")
