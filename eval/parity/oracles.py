"""The networks behind the metrics FVA and MNAC, with their resizes."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from diffcf_jax.models.caffe_resnet import mnac_input, vggface2_input
from diffcf_jax.models.resize import resize_bicubic, resize_bilinear

from .golden import Golden, nchw
from .networks import load_original

Array = jax.Array


def check_fva(golden: Golden) -> None:
    """Compares a folder of the identity network: features and their cosine."""
    network = load_original(golden, "weights.npz", "vggface2")
    real, cf = golden.images("real"), golden.images("cf")
    golden.compare_images("transformed_stride7", vggface2_input(real)[:, ::7, ::7])

    @jax.jit
    def features(variables: dict, x: Array) -> Array:
        return network.module.apply(variables, vggface2_input(x))

    f_real, f_cf = features(network.variables, real), features(network.variables, cf)
    golden.compare("features_real", f_real[..., None, None])
    golden.compare("features_cf", f_cf[..., None, None])
    norms = jnp.linalg.norm(f_real, axis=-1) * jnp.linalg.norm(f_cf, axis=-1)
    cosine = jnp.sum(f_real * f_cf, axis=-1) / norms
    golden.compare("scores", jnp.stack([(cosine > 0.5).astype(cosine.dtype), cosine], axis=-1))
    _compare_resizes(golden, "resize", resize_bilinear)


def check_mnac(golden: Golden) -> None:
    """Compares a folder of the attribute network: scores and the number of changed attributes."""
    network = load_original(golden, "weights.npz", "mnac")

    @jax.jit
    def scores(variables: dict, x: Array) -> Array:
        return jax.nn.sigmoid(network.module.apply(variables, mnac_input(x)))

    outputs = []
    for name in ("real", "cf"):
        outputs.append(scores(network.variables, golden.images(f"{name}_u8") / 255))
        golden.compare(f"out_{name}", outputs[-1])
    changed = ((outputs[0] > 0.5) != (outputs[1] > 0.5)).sum(axis=1)
    golden.compare("mnac", np.asarray(changed, np.float32))
    _compare_resizes(golden, "bicubic", resize_bicubic)


def _compare_resizes(
    golden: Golden, prefix: str, resize: Callable[[Array, int, int], Array]
) -> None:
    image = golden.images(f"{prefix}_in")
    sizes = {name.split("_")[1] for name in golden.names() if name.startswith(f"{prefix}_")}
    for size in sorted(sizes, key=int):
        resized = nchw(resize(image, int(size), int(size)))
        golden.compare(f"{prefix}_{size}", resized)
