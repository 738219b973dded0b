"""The diffusion process: noise schedule, respacing, forward samples and posteriors.

Images are in [-1, 1] here; `t` is an index of the respaced process, 0 for the least noise. The
constants are computed in float64 and cast when they are used, as in the originals.
"""

import dataclasses
import functools
import math
import re

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float64, Int

from diffcf_jax.errors import UserError

# Constants of a process of T timesteps
Constants = Float64[np.ndarray, " T"]
Timesteps = Int[np.ndarray, " T"]
# One image, one code, or a batch: all images of a function have the same shape.
Image = Float[Array, "*image"]
# Into a process: one index for all, or one per leading axis of an image
Index = Int[Array, "..."] | int


def linear_betas(steps: int) -> Constants:
    """Betas from 1e-4 to 0.02, scaled by 1000/steps (Ho et al., 2020)."""
    scale = 1000 / steps
    return np.linspace(scale * 1e-4, scale * 0.02, steps, dtype=np.float64)


def cosine_betas(steps: int, max_beta: float = 0.999) -> Constants:
    """Betas of alphas_cumprod = cos^2 (Nichol and Dhariwal, 2021, eq. 17)."""

    def alphas_cumprod(u: float) -> float:
        return math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2

    ratios = [alphas_cumprod((i + 1) / steps) / alphas_cumprod(i / steps) for i in range(steps)]
    return np.minimum(1 - np.array(ratios), max_beta)


def constant_betas(steps: int, beta: float) -> Constants:
    """The same beta at every timestep, scaled by 1000/steps.

    The latent DPM of Diff-AE is trained with 0.008 (Preechakul et al., 2022, and its code).
    """
    return np.full(steps, 1000 / steps * beta)


def betas_between(steps: int, first: float, last: float, power: int = 1) -> Constants:
    """Betas whose roots of order `power` are equidistant: 1 is linear, 2 "scaled linear".

    The latter is that of latent diffusion (Rombach et al., 2022, and its code). Unlike
    `linear_betas` they do not depend on the number of steps.
    """
    return np.linspace(first ** (1 / power), last ** (1 / power), steps) ** power


def respaced_timesteps(steps: int, respacing: str) -> list[int]:
    """Chooses which timesteps of the original process a shorter one keeps.

    Args:
        steps: length of the original process.
        respacing: "" keeps all; "ddimN" takes the first integer stride that gives N timesteps;
            "N" or "N1,N2,..." divides the process into equal sections with that many timesteps
            each, the first and last of a section included.

    Returns:
        The kept timesteps, ascending.

    Raises:
        UserError: the process cannot be divided so.
    """
    if not respacing:
        return list(range(steps))
    if not re.fullmatch(r"ddim[1-9]\d*|[1-9]\d*(,[1-9]\d*)*", respacing):
        raise UserError(
            f"The respacing '{respacing}' is not understood: give a number of steps such as 50, "
            "numbers for equal sections such as 10,15,25, or ddim50 for an integer stride."
        )
    if respacing.startswith("ddim"):
        count = int(respacing.removeprefix("ddim"))
        for stride in range(1, steps):
            if len(range(0, steps, stride)) == count:
                return list(range(0, steps, stride))
        raise UserError(
            f"No integer stride takes exactly {count} of {steps} timesteps; "
            "choose a number of steps that divides the process, such as 10, 20, 50 or 250."
        )
    counts = [int(count) for count in respacing.split(",")]
    kept, start = set(), 0
    for i, count in enumerate(counts):
        size = steps // len(counts) + (i < steps % len(counts))
        if size < count:
            raise UserError(f"A section of {size} timesteps cannot be respaced to {count}.")
        stride = (size - 1) / (count - 1) if count > 1 else 1
        # The originals add the stride up in floating point and round half to even.
        position = 0.0
        for _ in range(count):
            kept.add(start + round(position))
            position += stride
        start += size
    return sorted(kept)


@dataclasses.dataclass(frozen=True, eq=False)
class Diffusion:
    """A (respaced) Gaussian diffusion process and how the output of its network is read.

    The constants follow from `betas`. At index t, with a = alphas_cumprod and a' the same at t - 1:

    Attributes:
        betas: of the respaced process.
        timesteps: the timestep of the original process at each index.
        original_steps: length of the original process.
        predict: what the network predicts: "eps", "x_start" or "v", which is
            sqrt(alphas_cumprod) eps - sqrt(1 - alphas_cumprod) x_0 (Salimans and Ho, 2022).
        variance: "learned_range" (the network's second half of channels interpolates between the
            posterior's log variance and log beta), "fixed_small" (the posterior's) or
            "fixed_large" (beta).
        rescale_timesteps: give the network timesteps on a scale of 0 to 1000.
        log_betas: log beta.
        alphas_cumprod: product of 1 - beta up to t: the share of the image in the variance of x_t.
        alphas_cumprod_prev: a', 1 at t = 0.
        alphas_cumprod_next: a at t + 1, 0 at the last index.
        sqrt_alphas_cumprod: sqrt(a), the factor of x_0 in x_t.
        sqrt_one_minus_alphas_cumprod: sqrt(1 - a), the factor of the noise in x_t.
        sqrt_recip_alphas_cumprod: sqrt(1 / a).
        sqrt_recipm1_alphas_cumprod: sqrt(1 / a - 1).
        posterior_variance: beta (1 - a') / (1 - a), of q(x_(t-1) | x_t, x_0); 0 at t = 0.
        posterior_log_variance_clipped: its logarithm, at t = 0 that of t = 1.
        posterior_mean_coef1: beta sqrt(a') / (1 - a), the factor of x_0 in its mean.
        posterior_mean_coef2: (1 - a') sqrt(1 - beta) / (1 - a), the factor of x_t.
        fixed_large_variance: beta, at t = 0 the posterior variance of t = 1.
    """

    betas: Constants
    timesteps: Timesteps
    original_steps: int
    predict: str = "eps"
    variance: str = "learned_range"
    rescale_timesteps: bool = False
    log_betas: Constants = dataclasses.field(init=False, repr=False)
    alphas_cumprod: Constants = dataclasses.field(init=False, repr=False)
    alphas_cumprod_prev: Constants = dataclasses.field(init=False, repr=False)
    alphas_cumprod_next: Constants = dataclasses.field(init=False, repr=False)
    sqrt_alphas_cumprod: Constants = dataclasses.field(init=False, repr=False)
    sqrt_one_minus_alphas_cumprod: Constants = dataclasses.field(init=False, repr=False)
    sqrt_recip_alphas_cumprod: Constants = dataclasses.field(init=False, repr=False)
    sqrt_recipm1_alphas_cumprod: Constants = dataclasses.field(init=False, repr=False)
    posterior_variance: Constants = dataclasses.field(init=False, repr=False)
    posterior_log_variance_clipped: Constants = dataclasses.field(init=False, repr=False)
    posterior_mean_coef1: Constants = dataclasses.field(init=False, repr=False)
    posterior_mean_coef2: Constants = dataclasses.field(init=False, repr=False)
    fixed_large_variance: Constants = dataclasses.field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Derives the constants."""
        put = functools.partial(object.__setattr__, self)  # the dataclass is frozen
        betas, a = self.betas, np.cumprod(1 - self.betas)
        previous = np.append(1.0, a[:-1])
        variance = betas * (1 - previous) / (1 - a)
        put("log_betas", np.log(betas))
        put("alphas_cumprod", a)
        put("alphas_cumprod_prev", previous)
        put("alphas_cumprod_next", np.append(a[1:], 0.0))
        put("sqrt_alphas_cumprod", np.sqrt(a))
        put("sqrt_one_minus_alphas_cumprod", np.sqrt(1 - a))
        put("sqrt_recip_alphas_cumprod", np.sqrt(1 / a))
        put("sqrt_recipm1_alphas_cumprod", np.sqrt(1 / a - 1))
        # Where the posterior variance is 0, its successor stands in, or beta in a single step.
        first = np.append(variance[1:], betas)[:1]
        put("posterior_variance", variance)
        put("posterior_log_variance_clipped", np.log(np.append(first, variance[1:])))
        put("posterior_mean_coef1", betas * np.sqrt(previous) / (1 - a))
        put("posterior_mean_coef2", (1 - previous) * np.sqrt(1 - betas) / (1 - a))
        put("fixed_large_variance", np.append(first, betas[1:]))

    @property
    def num_timesteps(self) -> int:
        """Length T of the respaced process."""
        return len(self.betas)

    def model_t(self, t: Index) -> Float[Array, "..."] | Int[Array, "..."]:
        """The timestep that the network is given for index t, on the original scale."""
        if self.rescale_timesteps:
            return jnp.asarray(self.timesteps, float)[t] * (1000.0 / self.original_steps)
        return jnp.asarray(self.timesteps, jnp.int32)[t]


def make_diffusion(
    steps: int = 1000,
    schedule: str = "linear",
    respacing: str = "",
    predict: str = "eps",
    variance: str = "learned_range",
    rescale_timesteps: bool = False,
) -> Diffusion:
    """Makes a process: betas of `steps` timesteps, of which `respacing` keeps some.

    The respaced betas are `1 - alphas_cumprod[t_i] / alphas_cumprod[t_(i-1)]`, so that the kept
    timesteps have the noise levels of the original process.

    Args:
        steps: length of the original process.
        schedule: "linear", "cosine", "const" and a beta, such as "const0.008", or "linear" or
            "scaled_linear" and the first and last beta, such as "linear0.0001,0.02".
        respacing: see `respaced_timesteps`.
        predict: "eps", "x_start" or "v".
        variance: "learned_range", "fixed_small" or "fixed_large".
        rescale_timesteps: see `Diffusion`.

    Raises:
        UserError: a name is unknown or the process cannot be respaced so.
    """
    for key, value, known in (
        ("predict", predict, ("eps", "x_start", "v")),
        ("variance", variance, ("learned_range", "fixed_small", "fixed_large")),
    ):
        if value not in known:
            raise UserError(f"Unknown diffusion {key} '{value}'; choose one of {', '.join(known)}.")
    betas = _betas(schedule, steps)
    full = Diffusion(betas, np.arange(steps), steps, predict, variance, rescale_timesteps)
    return respace(full, respacing)


def respace(diffusion: Diffusion, respacing: str) -> Diffusion:
    """Keeps some timesteps of a process, with their noise levels; see `respaced_timesteps`."""
    kept = np.array(respaced_timesteps(diffusion.num_timesteps, respacing))
    alphas_cumprod = diffusion.alphas_cumprod[kept]
    betas = 1 - alphas_cumprod / np.append(1.0, alphas_cumprod[:-1])
    return dataclasses.replace(diffusion, betas=betas, timesteps=diffusion.timesteps[kept])


def _betas(schedule: str, steps: int) -> Constants:
    if schedule == "linear":
        if steps <= 20:  # where its last beta reaches 1
            raise UserError(f"A linear diffusion schedule needs more than 20 steps, not {steps}.")
        return linear_betas(steps)
    if schedule == "cosine":
        return cosine_betas(steps)
    match = re.fullmatch(r"(const|linear|scaled_linear)([\d.eE+-]+)(?:,([\d.eE+-]+))?", schedule)
    try:
        name, numbers = match[1], [float(text) for text in match.groups()[1:] if text]
    except (TypeError, ValueError):  # no match, or no number
        name, numbers = "", []
    if name == "const" and len(numbers) == 1 and 0 < numbers[0] * 1000 / steps < 1:
        return constant_betas(steps, numbers[0])
    if name.endswith("linear") and len(numbers) == 2 and all(0 < beta < 1 for beta in numbers):
        return betas_between(steps, *numbers, power=2 if name == "scaled_linear" else 1)
    raise UserError(
        f"Unknown diffusion schedule '{schedule}'; choose linear, cosine, constB with a beta B, "
        "such as const0.008, or linearA,B or scaled_linearA,B with the first and last beta, such "
        "as linear0.0001,0.02."
    )


def at(constants: Constants, t: Index, like: Float[Array, "..."]) -> Float[Array, "..."]:
    """Gathers `constants[t]` in the dtype of `like`, shaped to broadcast against it.

    Args:
        constants: of a process.
        t: one index, or one per leading axis of `like` ([B] for [B, H, W, C]).
        like: the array that the result will multiply.
    """
    values = jnp.asarray(constants, like.dtype)[t]
    return values.reshape(values.shape + (1,) * (like.ndim - values.ndim))


def q_sample(diffusion: Diffusion, x_start: Image, t: Index, noise: Image) -> Image:
    """Noises an image: x_t = sqrt(alphas_cumprod_t) x_0 + sqrt(1 - alphas_cumprod_t) noise."""
    return (
        at(diffusion.sqrt_alphas_cumprod, t, x_start) * x_start
        + at(diffusion.sqrt_one_minus_alphas_cumprod, t, x_start) * noise
    )


def training_target(diffusion: Diffusion, x_start: Image, t: Index, noise: Image) -> Image:
    """What the network should predict for `q_sample(x_start, t, noise)`."""
    if diffusion.predict == "eps":
        return noise
    if diffusion.predict == "x_start":
        return x_start
    return (
        at(diffusion.sqrt_alphas_cumprod, t, x_start) * noise
        - at(diffusion.sqrt_one_minus_alphas_cumprod, t, x_start) * x_start
    )


def predict_x_start(diffusion: Diffusion, x_t: Image, t: Index, output: Image) -> Image:
    """Computes x_0 from x_t and the output of the network; the inverse of `training_target`."""
    if diffusion.predict == "x_start":
        return output
    if diffusion.predict == "v":
        return (
            at(diffusion.sqrt_alphas_cumprod, t, x_t) * x_t
            - at(diffusion.sqrt_one_minus_alphas_cumprod, t, x_t) * output
        )
    return (
        at(diffusion.sqrt_recip_alphas_cumprod, t, x_t) * x_t
        - at(diffusion.sqrt_recipm1_alphas_cumprod, t, x_t) * output
    )


def predict_eps(diffusion: Diffusion, x_t: Image, t: Index, x_start: Image) -> Image:
    """Recovers the noise from x_t and x_0; the inverse of `q_sample`."""
    return (
        at(diffusion.sqrt_recip_alphas_cumprod, t, x_t) * x_t - x_start
    ) / at(diffusion.sqrt_recipm1_alphas_cumprod, t, x_t)  # fmt: skip


def q_posterior_mean(diffusion: Diffusion, x_start: Image, x_t: Image, t: Index) -> Image:
    """Mean of q(x_(t-1) | x_t, x_0) (Ho et al., 2020, eq. 7)."""
    return (
        at(diffusion.posterior_mean_coef1, t, x_t) * x_start
        + at(diffusion.posterior_mean_coef2, t, x_t) * x_t
    )
