"""What a diagnosis looks at: a generator, a regressor and some images."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from diffcf_jax.checkpoint.network import Network
from diffcf_jax.data.open import open_data
from diffcf_jax.diffusion.schedule import Diffusion, make_diffusion
from diffcf_jax.errors import UserError
from diffcf_jax.inputs import apply_of, load_networks, regressor_unit
from diffcf_jax.units import Unit

Array = jax.Array


@dataclasses.dataclass(frozen=True, eq=False)
class Subject:
    """What is diagnosed.

    Attributes:
        generator: a DDPM or a Diff-AE.
        diffusion: its full process.
        read: images [B, H, W, 3] in [0, 1] -> predictions [B] in the user's unit.
        unit: of the predictions.
        method: the config's options of the method.
        images: float32 [n, H, W, 3] in [0, 1], spread evenly over the data set.
        names: of the images.
        more_images: up to 512 of them, for statistics of codes.
        seed: of all draws.
    """

    generator: Network
    diffusion: Diffusion
    read: Callable[[np.ndarray | Array], np.ndarray]
    unit: Unit
    method: Mapping[str, Any]
    images: np.ndarray
    names: list[str]
    more_images: np.ndarray
    seed: int


def open_subject(config: Mapping[str, Any], count: int, more: int = 512) -> Subject:
    """Opens what a config of explain.py names.

    Args:
        config: as a dict.
        count: images to look at; all of them if there are fewer.
        more: images for statistics of codes.

    Raises:
        UserError: whatever is wrong with the config, a checkpoint or an image; fewer than 2 images.
    """
    generator, regressor = load_networks(config["generator"], config["regressor"])
    if generator.kind not in ("ddpm", "diffae"):
        raise UserError(
            f"config.generator.checkpoint is a {generator.kind}; a ddpm or a diffae is needed."
        )
    unit = regressor_unit(regressor, config["regressor"])
    apply = jax.jit(apply_of(regressor))

    def read(images: np.ndarray | Array) -> np.ndarray:
        return unit.denormalise(np.asarray(apply(regressor.variables, images)))

    records = open_data(config["data"], generator.description["image_size"])
    if len(records) < 2 or count < 2:
        raise UserError("A diagnosis needs at least 2 images; see config.data and --images.")
    more = max(count, more if generator.kind == "diffae" else count)
    rows = np.unique(np.linspace(0, len(records) - 1, min(more, len(records))).astype(int))
    some = np.unique(np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int))
    images = np.stack([records[int(row)].image for row in rows]).astype(np.float32) / 255
    return Subject(
        generator=generator,
        diffusion=make_diffusion(**generator.description["diffusion"]),
        read=read,
        unit=unit,
        method=config["method"],
        images=images[some],
        names=[records.names[rows[i]] for i in some],
        more_images=images,
        seed=config["seed"],
    )
