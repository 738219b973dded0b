"""AC-RE's small parts: distance terms with their schedules, the projection, the masks."""

import re
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from diffcf_jax.counterfactual.losses import l1, l2
from diffcf_jax.counterfactual.signed_steps import pgd_update

from .ac_re import masks_of
from .golden import Golden

Array = jax.Array

# Weight of a distance at iteration i of n
SCHEDULES: dict[str, Callable[[int, int], float]] = {
    "none": lambda i, n: 1.0,
    "linear": lambda i, n: (i + 1) / n,
    "step": lambda i, n: float(i > n // 2),
}


def check_terms(golden: Golden) -> None:
    """Compares a folder of kind `AC-RE distance terms and projection`."""
    config = golden.config
    x, x_adv = golden.images("x"), golden.images("x_adv")
    for key, (weight_l1, weight_l2) in config["weights"].items():

        def distance(x_adv: Array, weight_l1: float = weight_l1, weight_l2: float = weight_l2):
            # Sums over the batch, of absolute values and of norms
            return weight_l1 * l1(x - x_adv) + weight_l2 * jax.vmap(l2)(x - x_adv).sum()

        value, gradient = jax.value_and_grad(distance)(x_adv)
        golden.compare(f"{key}.value", value)
        for schedule, weight in SCHEDULES.items():
            for i in _iterations(golden, f"{key}.{schedule}."):
                scaled = weight(i, config["nb_iter"]) * gradient
                golden.compare_images(f"{key}.{schedule}.i{i}.grad", scaled)

    # The ball never binds at the original's eps of 1; pgd_update projects onto [0, 1] alone.
    projected = golden.images("proj_in")
    for name in [name for name in golden.names() if name.startswith("proj_linf_eps")]:
        eps = float(name.removeprefix("proj_linf_eps"))
        inside = jnp.clip(projected, x - eps, x + eps)
        golden.compare_images(name, pgd_update(inside, jnp.zeros_like(inside), 0.0))


def check_mask(golden: Golden) -> None:
    """Compares a folder of kind `core.utils.generate_mask`."""
    x1, x2 = golden.images("x1"), golden.images("x2")
    equal = np.asarray((x1 == x2).all((1, 2, 3)))
    for suffix, index in (("", ~equal), ("_equal", equal)):
        pair = x1[index], x2[index]
        golden.compare_images(f"mask{suffix}", masks_of(*pair, 1, 0.15)[0])
        for name in golden.names():
            if match := re.fullmatch(rf"dil_mask{suffix}_(\d+)", name):
                golden.compare_images(name, masks_of(*pair, int(match[1]), 0.15)[1])
            if match := re.fullmatch(rf"boolmask{suffix}(?:_(\d+)_([\d.]+))?", name):
                keep = masks_of(*pair, int(match[1] or 1), float(match[2] or 0.15))[2]
                golden.compare_images(name, keep.astype(jnp.uint8))


def _iterations(golden: Golden, prefix: str) -> list[int]:
    """The iterations at which a schedule is recorded."""
    pattern = re.compile(rf"{re.escape(prefix)}i(\d+)\.grad")
    return [int(match[1]) for name in golden.names() if (match := pattern.fullmatch(name))]
