"""What a run starts from: networks, images and targets, checked at the border."""

import math
from collections.abc import Mapping
from typing import Any

from diffcf_jax.checkpoint.network import REGRESSORS, Network
from diffcf_jax.checkpoint.store import load_network
from diffcf_jax.data.folder import ImageFolder
from diffcf_jax.data.squares import Squares
from diffcf_jax.errors import UserError


def load_networks(
    generator: Mapping[str, Any], regressor: Mapping[str, Any]
) -> tuple[Network, Network]:
    """Loads the generator and the regressor that a config names.

    Args:
        generator: `checkpoint`, a network directory.
        regressor: `checkpoint`, a network directory.

    Raises:
        UserError: a checkpoint is missing or broken, or the two do not fit each other.
    """
    generator_net = _load("generator", generator)
    regressor_net = _load("regressor", regressor)
    if regressor_net.kind not in REGRESSORS:
        raise UserError(f"config.regressor.checkpoint is a {regressor_net.kind}, not a regressor.")
    size = generator_net.description["image_size"]
    if regressor_net.description["image_size"] != size:
        raise UserError(
            f"The generator is of {size} pixels and the regressor of "
            f"{regressor_net.description['image_size']}; give two checkpoints of one image size."
        )
    return generator_net, regressor_net


def parse_targets(text: str) -> list[float]:
    """Reads "0.2,0.8".

    Raises:
        UserError: a part is not a finite number.
    """
    parts = [part.strip() for part in str(text).strip("()[] ").split(",") if part.strip()]
    targets = []
    for part in parts:
        try:
            targets.append(float(part))
        except ValueError:
            targets.append(math.nan)
        if not math.isfinite(targets[-1]):
            raise UserError(
                f"config.targets has '{part}', which is not a finite number; "
                "give numbers separated by commas, such as 0.2,0.8."
            )
    return targets


def open_data(data: Mapping[str, Any], image_size: int) -> Squares | ImageFolder:
    """Opens the data set that a config names; a path alone means a folder.

    Raises:
        UserError: the name is unknown, or the folder does not serve.
    """
    name = "folder" if data["path"] else data["name"]
    limit = data["limit"]
    if limit is not None and limit < 1:
        raise UserError(f"config.data.limit={limit} must be at least 1.")
    if name == "squares":
        return Squares("validation", limit)
    if name == "folder":
        if not data["path"]:
            raise UserError("config.data.path is empty; give the folder that holds the images.")
        return ImageFolder(data["path"], image_size, data["convert"], limit)
    raise UserError(f"Unknown data set config.data.name='{name}'; choose squares or folder.")


def _load(role: str, config: Mapping[str, Any]) -> Network:
    try:
        return load_network(config["checkpoint"])
    except UserError as error:
        raise UserError(f"config.{role}.checkpoint: {error}") from None
