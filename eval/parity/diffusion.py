"""The diffusion process: respaced constants, q_sample, p_mean_variance and DDIM steps."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from diffcf_jax.diffusion.sampler import ddim_step, p_mean_variance
from diffcf_jax.diffusion.schedule import (
    Diffusion,
    at,
    cosine_betas,
    linear_betas,
    make_diffusion,
    predict_x_start,
    q_posterior_mean,
    q_sample,
)

from .golden import Golden

CONSTANTS = (
    "betas",
    "alphas_cumprod",
    "alphas_cumprod_prev",
    "alphas_cumprod_next",
    "sqrt_alphas_cumprod",
    "sqrt_one_minus_alphas_cumprod",
    "sqrt_recip_alphas_cumprod",
    "sqrt_recipm1_alphas_cumprod",
    "posterior_variance",
    "posterior_log_variance_clipped",
    "posterior_mean_coef1",
    "posterior_mean_coef2",
)


def original_diffusion(flags: dict[str, Any]) -> Diffusion:
    """The process of ACE's flags (`create_gaussian_diffusion`)."""
    steps = flags.get("steps", flags.get("diffusion_steps", 1000))
    respacing = flags.get("timestep_respacing", "")
    if isinstance(respacing, list | tuple):
        respacing = ",".join(str(count) for count in respacing)
    variance = "fixed_small" if flags.get("sigma_small") else "fixed_large"
    return make_diffusion(
        steps,
        flags.get("noise_schedule", "linear"),
        str(respacing),
        "x_start" if flags.get("predict_xstart") else "eps",
        "learned_range" if flags.get("learn_sigma") else variance,
        flags.get("rescale_timesteps", False),
    )


def check_ddpm(golden: Golden) -> None:
    """Compares a folder of kind `guided_diffusion SpacedDiffusion`."""
    for key, case in golden.config["cases"].items():
        diffusion = original_diffusion(case["kw"])
        _compare_constants(golden, key, diffusion)
        schedule = case["kw"].get("noise_schedule", "linear")
        betas = {"linear": linear_betas, "cosine": cosine_betas}[schedule]
        golden.compare_constants(f"{key}.original_betas", betas(diffusion.original_steps))
        _compare_ddpm(golden, key, diffusion)


def check_ddim(golden: Golden) -> None:
    """Compares a folder of kind `Diff-AE SpacedDiffusionBeatGans (ddim)`."""
    config = golden.config
    for count in config["Ts"]:
        key = f"T{count}"
        diffusion = make_diffusion(
            config["T_train"], config.get("beta_scheduler", "linear"), f"ddim{count}"
        )
        _compare_constants(golden, key, diffusion)
        x, eps = golden.images(f"{key}.x"), golden.images(f"{key}.eps")
        t = jnp.asarray(golden.array(f"{key}.t"), jnp.int32)
        golden.compare(f"{key}.model_t", diffusion.model_t(t))
        x_start = jnp.clip(predict_x_start(diffusion, x, t, eps), -1, 1)
        golden.compare_images(f"{key}.pred_xstart", x_start)
        golden.compare_images(f"{key}.ddim_sample", ddim_step(diffusion, eps, x, t))
        reverse = ddim_step(diffusion, eps, x, t, reverse=True)
        golden.compare_images(f"{key}.ddim_reverse_sample", reverse)


def _compare_constants(golden: Golden, key: str, diffusion: Diffusion) -> None:
    for name in CONSTANTS:
        golden.compare_constants(f"{key}.{name}", getattr(diffusion, name))
    logs = np.log(1 - diffusion.alphas_cumprod)
    golden.compare_constants(f"{key}.log_one_minus_alphas_cumprod", logs)
    golden.compare(f"{key}.timestep_map", diffusion.timesteps)


def _compare_ddpm(golden: Golden, key: str, diffusion: Diffusion) -> None:
    t = jnp.asarray(golden.array(f"{key}.t"), jnp.int32)
    x_start, noise = golden.images(f"{key}.x_start"), golden.images(f"{key}.noise")
    output = golden.images(f"{key}.model_output")
    golden.compare(f"{key}.model_t", diffusion.model_t(t))

    x_t = q_sample(diffusion, x_start, t, noise)
    golden.compare_images(f"{key}.q_sample", x_t)
    if not golden.x64:  # the original's next input, so that errors do not add up
        x_t = golden.images(f"{key}.q_sample")
    for name, clip in (("clip", True), ("noclip", False)):
        p = p_mean_variance(diffusion, output, x_t, t, clip)
        golden.compare_images(f"{key}.{name}.mean", p.mean)
        golden.compare_images(f"{key}.{name}.variance", p.variance)
        golden.compare_images(f"{key}.{name}.log_variance", p.log_variance)
        golden.compare_images(f"{key}.{name}.pred_xstart", p.x_start)

    mean = q_posterior_mean(diffusion, x_start, x_t, t)
    golden.compare_images(f"{key}.q_posterior.mean", mean)
    for name, table in (
        ("variance", diffusion.posterior_variance),
        ("log_variance", diffusion.posterior_log_variance_clipped),
    ):
        values = jnp.broadcast_to(at(table, t, x_t), x_t.shape)
        golden.compare_images(f"{key}.q_posterior.{name}", values)
