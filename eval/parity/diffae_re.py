"""Diff-AE-RE: losses and gradients with every distance, and whole trajectories."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from diffcf_jax.counterfactual.types import select

from .diffae import Distance, Original, check_autoencoder, check_networks
from .golden import FLOAT32_ERROR, Golden, loss_error, prediction_error

Array = jax.Array


def check(golden: Golden) -> None:
    """Compares a folder of kind `Diff-AE BeatGANsAutoencModel`."""
    original = Original(golden)
    check_networks(golden, original)
    z_0, x_T = check_autoencoder(golden, original)
    if not golden.x64:  # the original's, so that errors do not add up
        z_0, x_T = golden.real("z_sem"), golden.images("dae_encode_xT")
    x = golden.images("x") / 2 + 0.5
    _check_losses(golden, original, z_0, x, x_T)
    for key, trajectory in golden.config.get("trajectories", {}).items():
        _check_trajectory(golden, original, z_0, x, x_T, key, trajectory)


def _check_losses(golden: Golden, original: Original, z_0: Array, x: Array, x_T: Array) -> None:
    targets = golden.real("loss_target")
    factors = {
        (norm, space): float(factor)
        for norm, space, factor in re.findall(
            r"(l1|l2) (latent|pixel) ([\d.e+-]*\d)", str(golden.config.get("loss_cases", ""))
        )
    }
    cases: dict[str, dict[str, Distance]] = {}
    for name in golden.names():
        if match := re.fullmatch(r"(at_\w+)\.(None|l1|l2)\.(latent|pixel)\.loss", name):
            at, norm, space = match.groups()
            distance = Distance(norm, space, factors[norm, space]) if norm != "None" else Distance()
            cases.setdefault(at, {})[f"{at}.{norm}.{space}"] = distance
    for at, distances in cases.items():
        z = z_0 + golden.real("loss_dz") if at == "at_dz" else z_0
        losses = original.losses(z, z_0, x, x_T, targets, distances.values())
        for key, loss in zip(distances, losses, strict=True):
            error = loss_error(loss.y, targets) + FLOAT32_ERROR * loss.distance
            golden.compare(f"{key}.loss", loss.value, f32=error)
            golden.compare(f"{key}.dist", loss.distance)
            golden.compare(f"{key}.grad_z", loss.gradient, f32=3e-4)
        golden.compare(f"{at}.y", loss.y, f32=prediction_error(loss.y))


def original_optimizer(name: str, config: dict[str, Any]) -> optax.GradientTransformation:
    """The optimiser of a trajectory: "adam", "sgd" or "sgd_momentum" (0.9).

    The config says it under some key, and where it says nothing, the trajectory's name.
    """
    words = " ".join(value.lower() for value in config.values() if isinstance(value, str))
    if "sgd" not in words and "adam" not in words:
        words = name.lower()
    if "sgd" not in words:
        return optax.adam(config["lr"])
    momentum = config.get("momentum", 0.9 if "mom" in words else None)
    return optax.sgd(config["lr"], momentum or None)


def _check_trajectory(
    golden: Golden,
    original: Original,
    z_0: Array,
    x: Array,
    x_T: Array,
    key: str,
    config: dict[str, Any],
) -> None:
    targets = golden.real(f"{key}.targets")
    threshold = np.float32(config["confidence_threshold"])
    norm = config.get("dist")
    distance = Distance()
    if norm not in (None, "None", "none"):
        space = "pixel" if "pixel" in key else "latent"
        distance = Distance(norm, config.get("dist_type", space), config.get("dist_factor", 0.0))
    optimizer = original_optimizer(key, config)
    update = jax.jit(jax.vmap(optimizer.update))

    z, opt_state = z_0, jax.vmap(optimizer.init)(z_0)
    attacking = np.ones(len(x), bool)
    steps = np.zeros(len(x), np.int64)
    seen: dict[str, list[Any]] = {
        name: [] for name in ("z", "y", "loss", "dist", "grads", "attacking_after", "steps_needed")
    }
    first = None
    for i in range(config["nb"]):
        loss = original.loss(z, z_0, x, x_T, targets, distance)
        first = loss.images if first is None else first
        # An image that passes is frozen before this iteration's update.
        attacking &= np.abs(np.asarray(loss.y - targets))[:, 0] > threshold
        steps = np.where(attacking, i, steps)
        seen["z"].append(z)
        seen["y"].append(loss.y)
        seen["loss"].append(loss.value)
        seen["dist"].append(loss.distance)
        seen["attacking_after"].append(attacking.astype(np.int32))
        seen["steps_needed"].append(steps)
        if not attacking.any():
            break
        seen["grads"].append(np.where(attacking[:, None], loss.gradient, np.nan))
        updates, moved = update(loss.gradient, opt_state, z)
        z = jnp.where(attacking[:, None], z + updates, z)
        opt_state = jax.vmap(select)(jnp.asarray(attacking), moved, opt_state)

    seen_y = np.stack(seen["y"])
    errors = {
        "z": 1e-4,
        "y": 1e-4 * max(1.0, float(np.abs(seen_y).max())),
        "loss": 1e-4,
        "dist": 1e-4 * float(np.abs(seen["dist"]).max()),
        "grads": 3e-4,
        "attacking_after": None,
        "steps_needed": None,
    }
    for name, values in seen.items():
        golden.compare(f"{key}.{name}", np.stack(values), f32=errors[name])
    golden.compare_images(f"{key}.x_prime_first", first, f32=4e-6)
    golden.compare_images(f"{key}.x_prime", loss.images, f32=1e-4)
    golden.compare_images(f"{key}.x_reconstructed", original.decode(z_0, x_T), f32=4e-6)
    golden.compare(f"{key}.successes", ~attacking)
    golden.compare(f"{key}.steps", steps)
    golden.compare(f"{key}.y_initial", seen_y[0, :, 0], f32=prediction_error(seen_y))
    golden.compare(f"{key}.y_final", seen_y[-1, :, 0], f32=errors["y"])
