"""AC-RE on one square, from the equations to a picture.

python docs/example.py counterfactual.png

A counterfactual of x is an image x' near x in which the regressor r reads the target y~. AC-RE (Ha
and Bender, 2025, eq. 9) looks for it in pixels, through a diffusion model that makes it plausible:

    min_x' (r(F_tau(x')) - y~)^2,   F_tau: noise to depth tau, then denoise

It is written out below for one image; `diffcf_jax/counterfactual/ac_re.py` is the same method for
many images at once. The regressor reads how red the inner square is, from 0 to 1.
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from diffcf_jax import load_network
from diffcf_jax.diffusion.schedule import make_diffusion

TAU, STEP_SIZE, THRESHOLD = 5, 2 / 255, 0.05
FLOOR = 0.15  # a pixel moves where its gradient is at least this share of the largest one
KEEP, DILATION = 0.15, 5  # a pixel is kept where everything near it changed less than this share

ddpm, regressor = load_network("squares_ddpm"), load_network("squares_regressor")
process = make_diffusion(**ddpm.description["diffusion"], respacing="50")
weights = ddpm.variables, regressor.variables  # arguments of the compiled functions


@jax.jit
def r(weights, x):
    """The prediction for an image [H, W, C] in [0, 1]."""
    return regressor.module.apply(weights[1], x[None])[0]


def q(x, t, noise):
    """Noises x in [-1, 1] to x_t (Ho et al., 2020, eq. 4)."""
    a = jnp.asarray(process.alphas_cumprod, x.dtype)[t]
    return jnp.sqrt(a) * x + jnp.sqrt(1 - a) * noise


def p(weights, x_t, t, noise):
    """Denoises x_t to x_(t-1) (Ho et al., 2020, eq. 7; Nichol and Dhariwal, 2021, eq. 15)."""
    a, of_x_0, of_x_t, high, low = (
        jnp.asarray(constants, x_t.dtype)[t]
        for constants in (
            process.alphas_cumprod,
            process.posterior_mean_coef1,
            process.posterior_mean_coef2,
            process.log_betas,
            process.posterior_log_variance_clipped,
        )
    )
    output = ddpm.module.apply(weights[0], x_t[None], process.model_t(t)[None])[0]
    eps, v = jnp.split(output, 2, axis=-1)  # the noise in x_t, and where its variance lies
    x_0 = jnp.clip((x_t - jnp.sqrt(1 - a) * eps) / jnp.sqrt(a), -1, 1)
    log_variance = (1 + v) / 2 * high + (1 - v) / 2 * low
    return of_x_0 * x_0 + of_x_t * x_t + jnp.where(t > 0, jnp.exp(log_variance / 2) * noise, 0)


def f_tau(weights, x_adv, x, keep, key):
    """F_tau(x'), with the kept pixels pinned to x at each noise level (RePaint, 2022, eq. 8)."""
    noises = jax.random.normal(key, (2, TAU + 1, *x.shape))

    def step(i, x_t):
        t = TAU - 1 - i
        x_t = keep * q(2 * x - 1, t, noises[0, t]) + (1 - keep) * x_t
        return p(weights, x_t, t, noises[1, t])

    x_0 = jax.lax.fori_loop(0, TAU, step, q(2 * x_adv - 1, TAU - 1, noises[1, TAU]))
    return keep * x + (1 - keep) * (x_0 / 2 + 0.5)


@jax.jit
def pgd(weights, x_adv, x, target, keep, key):
    """One step x' <- clip(x' - step sign(gradient of eq. 9), 0, 1), and r(F_tau(x')) before it."""

    def loss(x_adv):
        y = r(weights, f_tau(weights, x_adv, x, keep, key))
        return jnp.square(y - target), y

    gradient, y = jax.grad(loss, has_aux=True)(x_adv)
    size = jnp.abs(gradient)
    direction = jnp.where(size >= FLOOR * size.max(), jnp.sign(gradient), 0)
    return jnp.clip(x_adv - STEP_SIZE * direction, 0, 1), y


@jax.jit
def refine(weights, x_adv, x, key):
    """Keeps x where little changed, and denoises the rest (ACE, 2023, eq. 6)."""
    change = jnp.abs(x_adv - x).sum(-1, keepdims=True)
    window = (DILATION, DILATION, 1)
    near = jax.lax.reduce_window(change, 0.0, jax.lax.max, window, (1, 1, 1), "SAME")
    keep = (near < KEEP * change.max()).astype(x.dtype)
    return jnp.clip(f_tau(weights, x_adv, x, keep, key), 0, 1), keep


def main(path, target=0.75, iterations=100):
    """Explains one square, and writes input, counterfactual and change side by side."""
    noise = np.random.default_rng(0).normal(0, 20, (64, 64, 3))
    x = np.full((64, 64, 3), 120.0)  # the background,
    x[20:32, 36:48] = 128  # the border of the square
    x[22:30, 38:46] = [60, 0, 0]  # and its inside, whose red is 60 / 255
    x = jnp.asarray(np.clip(x + noise, 0, 255) / 255, jnp.float32)

    x_adv, image, keep = x, x, jnp.zeros((64, 64, 1))
    for i in range(iterations):
        x_adv, y = pgd(weights, x_adv, x, target, keep, jax.random.key(i))
        if abs(y - target) <= THRESHOLD:  # F_tau(x') reads the target: does the refined image?
            image, keep = refine(weights, x_adv, x, jax.random.key(iterations + i))
            if abs(r(weights, image) - target) <= THRESHOLD:
                break
    before, after = float(r(weights, x)), float(r(weights, image))
    print(f"{before:.2f} -> {after:.2f} for the target {target} after {i + 1} iterations")

    panels = jnp.concatenate([x, image, jnp.abs(image - x)], axis=1)
    picture = Image.fromarray(np.uint8(np.rint(255 * np.asarray(panels))))
    picture.resize((4 * picture.width, 4 * picture.height), Image.Resampling.NEAREST).save(path)
    return before, after


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "counterfactual.png")
