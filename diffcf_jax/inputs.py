"""What a run starts from: networks, images and targets, checked at the border."""

import contextlib
import math
import numbers
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from diffcf_jax.checkpoint.convert import describe_unconverted
from diffcf_jax.checkpoint.network import REGRESSORS, Network, abstract_variables, build_module
from diffcf_jax.checkpoint.store import load_network, read_description
from diffcf_jax.errors import UserError

Config = Mapping[str, Any]


def load_networks(
    generator: Config, regressor: Config, oracle: Config | None = None
) -> tuple[Network, Network]:
    """Loads the generator and the regressor that a config names.

    Args:
        generator: `checkpoint`, a network directory; for one that has to be fetched first also
            `original`, what it is made of and where that is found, and `convert`, the converter's
            arguments.
        regressor: the same keys.
        oracle: the same keys; only told of when something else is missing.

    Raises:
        UserError: a checkpoint is missing or broken, or the two do not fit each other.
    """
    _check_fetched({"generator": generator, "regressor": regressor, "oracle": oracle or {}})
    networks = _load("generator", generator), _load("regressor", regressor)
    _check_pair(*networks)
    return networks


def abstract_networks(generator: Config, regressor: Config) -> tuple[Network, Network]:
    """The same networks with the shapes of their weights instead of the weights.

    Args:
        generator: as in `load_networks`; a checkpoint that is missing is described by `convert`.
        regressor: the same.

    Raises:
        UserError: a checkpoint is missing and `convert` too, or the two do not fit each other.
    """
    networks = _abstract("generator", generator), _abstract("regressor", regressor)
    _check_pair(*networks)
    return networks


def _check_pair(generator_net: Network, regressor_net: Network) -> None:
    if regressor_net.kind not in REGRESSORS:
        raise UserError(f"config.regressor.checkpoint is a {regressor_net.kind}, not a regressor.")
    size = generator_net.description["image_size"]
    if regressor_net.description["image_size"] != size:
        raise UserError(
            f"The generator is of {size} pixels and the regressor of "
            f"{regressor_net.description['image_size']}; give two checkpoints of one image size."
        )


def parse_targets(text: str) -> list[float]:
    """Reads "0.2,0.8"; a number that is there twice, in float32, counts once.

    Raises:
        UserError: a part is not a finite number.
    """
    parts = [part.strip() for part in str(text).strip("()[] ").split(",") if part.strip()]
    targets = {}
    for part in parts:
        try:
            target = float(part)
        except ValueError:
            target = math.nan
        targets.setdefault(np.float32(target), target)
        if not math.isfinite(target):
            raise UserError(
                f"config.targets has '{part}', which is not a finite number; "
                "give numbers separated by commas, such as 0.2,0.8."
            )
    return list(targets.values())


def parse_batch_size(value: int | str) -> int | str:
    """A number of at least 1, also as text, or "auto".

    Raises:
        UserError: it is something else.
    """
    if value == "auto" or str(value).isdecimal() and int(value) >= 1:
        return value if value == "auto" else int(value)
    raise UserError(f"batch_size={value} must be a whole number of at least 1, or auto.")


def check_seed(seed: int) -> None:
    """Refuses what JAX makes no random key of.

    Raises:
        UserError: the seed is not between 0 and 2^32 - 1.
    """
    if not (isinstance(seed, numbers.Integral) and 0 <= seed < 2**32):
        raise UserError(f"seed={seed} must be a whole number between 0 and {2**32 - 1}.")


def _check_fetched(sections: Mapping[str, Config]) -> None:
    """Says how to get the checkpoints that are missing and that the config knows how to get."""
    missing = {
        role: config
        for role, config in sections.items()
        if config.get("original") and not Path(config["checkpoint"], "network.json").is_file()
    }
    if not missing.keys() & {"generator", "regressor"}:
        return
    lines = [
        "The PyTorch originals of this config's networks have to be fetched and converted once "
        "(or pass other checkpoints):"
    ]
    for role, config in missing.items():
        purpose = ", only for eval.metrics" if role == "oracle" else ""
        command = "python -m diffcf_jax.checkpoint.convert"
        lines += [
            f"\nconfig.{role}.checkpoint={config['checkpoint']} is missing{purpose}",
            f"  from     {config['original']}",
            f"  convert  {command} {config['convert']} --out {config['checkpoint']}",
        ]
    raise UserError("\n".join(lines))


def _load(role: str, config: Config) -> Network:
    with _naming(role):
        return load_network(config["checkpoint"])


def _abstract(role: str, config: Config) -> Network:
    directory = Path(config["checkpoint"])
    with _naming(role):
        if config.get("convert") and not (directory / "network.json").is_file():
            description = describe_unconverted(config["convert"])
        else:
            description = read_description(directory)
        return Network(description, build_module(description), abstract_variables(description))


@contextlib.contextmanager
def _naming(role: str) -> Iterator[None]:
    try:
        yield
    except UserError as error:
        raise UserError(f"config.{role}.checkpoint: {error}") from None
