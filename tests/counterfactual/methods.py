"""Methods that compile in a second: the real ones on networks of one or two layers."""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from diffcf_jax.counterfactual.ac_re import ACRE, ACREMethod
from diffcf_jax.counterfactual.diffae_re import DiffAERE, DiffAEREMethod, DiffAERENewton
from diffcf_jax.counterfactual.events import Job
from diffcf_jax.counterfactual.hybrid import Hybrid, HybridMethod
from diffcf_jax.counterfactual.types import Counterfactual, Query, Stop, select
from diffcf_jax.diffusion.schedule import make_diffusion

SIZE = 16


def conv(kernel, x):
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def variables():
    keys = iter(jax.random.split(jax.random.key(0), 8))
    return {
        "generator": {
            "in": 0.3 * jax.random.normal(next(keys), (3, 3, 3, 16)),
            "out": 0.1 * jax.random.normal(next(keys), (3, 3, 16, 3)),
            "encode": 0.1 * jax.random.normal(next(keys), (3, 8)),
            "code": 0.5 * jax.random.normal(next(keys), (8, 16)),
        },
        "regressor": {"in": 0.2 * jax.random.normal(next(keys), (3, 3, 3, 16))},
        "refiner": {
            "in": 0.3 * jax.random.normal(next(keys), (3, 3, 3, 16)),
            "out": 0.1 * jax.random.normal(next(keys), (3, 3, 16, 3)),
        },
    }


def regressor(v, images):
    return jnp.tanh(conv(v["in"], images)).mean((1, 2)) @ jnp.linspace(-1, 3, 16)


def denoise(v, x_t, t):
    h = conv(v["in"], x_t) + 0.01 * t[:, None, None, None]
    eps = conv(v["out"], jax.nn.silu(h)) + 0.3 * x_t
    return jnp.concatenate([eps, jnp.zeros_like(eps)], -1)


def predict(v, x_t, t, z):
    h = conv(v["in"], x_t) + (z @ v["code"])[:, None, None] + 0.001 * t[:, None, None, None]
    return conv(v["out"], jax.nn.silu(h)) + 0.3 * x_t


def ac_re(gradient_floor=0.15):
    process = make_diffusion(steps=100, respacing="20")
    # Without a floor the sign of every tiny gradient would move a pixel by a whole step.
    options = ACRE(tau=2, iterations=20, threshold=0.02, gradient_floor=gradient_floor)
    return ACREMethod(options, process, denoise, regressor)


def diffae_re(kind=DiffAEREMethod):
    return kind(
        options=DiffAERE(iterations=20, threshold=0.01),
        encode=lambda v, x: x.mean((1, 2)) @ v["encode"],
        predict=predict,
        inversion=make_diffusion(steps=100, respacing="ddim5"),
        decoding=make_diffusion(steps=100, respacing="ddim2"),
        regressor=regressor,
        optimizer=optax.adam(0.05),
    )


def hybrid():
    process = make_diffusion(steps=100, respacing="20")
    options = Hybrid(tau=2, iterations=20, threshold=0.01)
    return HybridMethod(options, diffae_re(DiffAERENewton), process, denoise)


METHODS = {"ac-re": ac_re, "diffae-re": diffae_re}


def make_image():
    """One image [H, W, 3]."""
    return np.random.default_rng(3).uniform(0.2, 0.8, (SIZE, SIZE, 3)).astype(np.float32)


def make_jobs(method, params, count=7):
    """Images whose targets are near, farther and out of reach."""
    images = np.random.default_rng(0).uniform(0.2, 0.8, (count, SIZE, SIZE, 3)).astype(np.float32)

    def reconstructed(image):
        state = method.init(params, Query.of(image, 0.0), jax.random.key(0))
        return method.step(params, state).result.y_reconstruction

    start = jax.jit(jax.vmap(reconstructed))(images)
    shifts = (0.0, 0.05, 0.1, 5.0, -0.05, 0.02, -0.1)
    return [
        Job(i, image, float(y) + shifts[i % 7])
        for i, (image, y) in enumerate(zip(images, start, strict=True))
    ]


@flax.struct.dataclass
class CountingState:
    query: Query
    key: jax.Array
    rejections: jax.Array
    stopped: jax.Array
    done: jax.Array
    result: Counterfactual


class Counting:
    """Needs `target` iterations; `finish` rejects once, at half of them, where that is whole.

    Its image is a sum of random numbers, one an iteration, so that any disorder shows.
    """

    iterations = 200
    shares_first_step = False
    answers = 1

    def init(self, params, query, key):
        image, zero = query.image, jnp.zeros(())
        result = Counterfactual(
            image=image,
            reconstruction=image,
            y_initial=zero,
            y_reconstruction=zero,
            y_final=zero,
            success=jnp.zeros((), bool),
            stop=jnp.full((), Stop.ITERATIONS, jnp.int32),
            iterations=jnp.zeros((), jnp.int32),
            curve=jnp.full((self.iterations,), jnp.nan),
            mask=jnp.ones_like(image[..., :1]),
        )
        no = jnp.zeros((), bool)
        return CountingState(query, key, jnp.zeros((), jnp.int32), no, no, result)

    def step(self, params, state):
        i = state.result.iterations + 1
        draw = jax.random.uniform(jax.random.fold_in(state.key, i), state.query.image.shape)
        target = state.query.accept[0]
        half = (i * 2 == target) & (state.rejections == 0)
        moved = state.replace(
            stopped=half | (i >= target),
            result=state.result.replace(
                image=state.result.image + params["generator"] * draw,
                curve=state.result.curve.at[i - 1].set(i),
                y_final=i.astype(jnp.float32),
                iterations=i,
            ),
        )
        return select(state.stopped, state, moved)

    def finish(self, params, state):
        done = state.stopped & (state.result.iterations >= state.query.accept[0])
        return state.replace(
            done=done,
            stopped=done,
            rejections=state.rejections + (state.stopped & ~done),
            result=state.result.replace(success=done),
        )
