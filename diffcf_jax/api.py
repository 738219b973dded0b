"""The Python interface: explain arrays of images with any JAX regressor."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffcf_jax.checkpoint.network import Network
from diffcf_jax.counterfactual.build import build_method
from diffcf_jax.counterfactual.engine import Job, explain_all
from diffcf_jax.counterfactual.types import Counterfactual
from diffcf_jax.errors import UserError
from diffcf_jax.inputs import check_seed, parse_batch_size


def explain(
    images: Any,
    target: Any,
    *,
    generator: Network,
    regressor: Network | Callable[[jax.Array], jax.Array],
    method: str = "ac-re",
    seed: int = 0,
    batch_size: int | str = 16,
    **options: Any,
) -> Counterfactual:
    """Finds images near the given ones in which the regressor reads the target.

    Args:
        images: [B, H, W, 3] in [0, 1], of the generator's size.
        target: the value to reach, one for all or [B].
        generator: a DDPM for AC-RE, a Diff-AE for Diff-AE-RE (`checkpoint.store.load_network`).
        regressor: a network, or any differentiable JAX function from images [B, H, W, 3] in
            [0, 1] to predictions [B].
        method: "ac-re" (sparse edits of pixels) or "diffae-re" (richer edits of the semantic code).
        seed: of all randomness.
        batch_size: images that are worked on at a time, which changes no result; "auto": as many
            as fit into the memory.
        **options: hyper-parameters, see `counterfactual.build.build_method`.

    Returns:
        A `Counterfactual` of numpy arrays, each with a leading axis [B], in the order of `images`.

    Raises:
        UserError: shapes, ranges, targets, the method or another argument do not fit.
    """
    images = np.asarray(images, np.float32)
    size = generator.description["image_size"]
    if images.ndim != 4 or images.shape[1:] != (size, size, 3) or not len(images):
        raise UserError(
            f"images has shape {images.shape}; this generator needs [B, {size}, {size}, 3]."
        )
    if not (images.min() >= 0 and images.max() <= 1):
        raise UserError("images must be floats in [0, 1]; divide uint8 images by 255.")
    try:
        targets = np.broadcast_to(np.asarray(target, np.float32), len(images))
    except ValueError:
        raise UserError(
            f"target must be one number, or one for each of {len(images)} images."
        ) from None
    if not np.isfinite(targets).all():
        raise UserError("target holds a value that is not finite; give one number for each image.")
    batch_size = parse_batch_size(batch_size)
    check_seed(seed)

    if isinstance(regressor, Network):
        apply, variables = regressor.module.apply, regressor.variables
    else:
        apply, variables = (lambda _, x: regressor(x)), {}
    _check_regressor(apply, variables, images)
    built = build_method(method, generator, apply, options)
    params = {"generator": generator.variables, "regressor": variables}
    jobs = [Job(i, image, float(targets[i])) for i, image in enumerate(images)]
    results: list[Any] = [None] * len(jobs)
    for finished in explain_all(built, params, jobs, batch_size, seed, count=len(jobs)):
        results[finished.job.id] = finished.counterfactual
    return jax.tree.map(lambda *leaves: np.stack(leaves), *results)


def _check_regressor(apply: Callable, variables: Any, images: np.ndarray) -> None:
    shape = jax.ShapeDtypeStruct((2, *images.shape[1:]), jnp.float32)
    out = jax.eval_shape(apply, variables, shape)
    if getattr(out, "shape", None) != (2,):
        raise UserError(
            f"regressor returns {out} for two images; it must return one number for each."
        )
