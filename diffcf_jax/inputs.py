"""What a run starts from: networks, images and targets, checked at the border."""

import contextlib
import numbers
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffcf_jax.checkpoint.convert import describe_unconverted
from diffcf_jax.checkpoint.diffusers import is_diffusers
from diffcf_jax.checkpoint.network import REGRESSORS, Network, abstract_variables, build_module
from diffcf_jax.checkpoint.store import load_network, read_description
from diffcf_jax.counterfactual.methods import method_options
from diffcf_jax.counterfactual.options import OptionError, Options
from diffcf_jax.errors import UserError
from diffcf_jax.regressors.load import load_regressor
from diffcf_jax.regressors.regressor import Regressor
from diffcf_jax.shipped import command, find_checkpoint
from diffcf_jax.target import Range, Target, parse_target, plain
from diffcf_jax.units import Unit, unit_of

Config = Mapping[str, Any]


def load_networks(
    generator: Config, regressor: Config, oracle: Config | None = None
) -> tuple[Network, Network | Regressor]:
    """Loads the generator and the regressor that a config names.

    Args:
        generator: `checkpoint`, a network directory; for one that has to be fetched first also
            `original`, what it is made of and where that is found, and `convert`, the converter's
            arguments.
        regressor: the same keys; or `model`, what `load_regressor` reads, with `preprocess` and
            `output` as text, and `unit`, `mean` and `scale`.
        oracle: the same keys; only told of when something else is missing.

    Raises:
        UserError: a checkpoint is missing or broken, or the two do not fit each other.
    """
    _check_fetched({"generator": generator, "regressor": regressor, "oracle": oracle or {}})
    networks = _load("generator", generator), _load_regressor(regressor)
    _check_pair(*networks)
    return networks


def load_refiner(config: Config | None) -> Network | None:
    """Loads the second generator of a method that takes two; None where the config has none.

    Args:
        config: `checkpoint`, a network directory.

    Raises:
        UserError: the checkpoint is missing or broken.
    """
    return _load("refiner", config) if config else None


def abstract_refiner(config: Config | None) -> Network | None:
    """The same network with the shapes of its weights instead of the weights."""
    return _abstract("refiner", config) if config else None


def abstract_networks(generator: Config, regressor: Config) -> tuple[Network, Network | Regressor]:
    """The same networks with the shapes of their weights instead of the weights.

    A `model` of the regressor is read with its weights.

    Args:
        generator: as in `load_networks`; a checkpoint that is missing is described by `convert`.
        regressor: the same.

    Raises:
        UserError: a checkpoint is missing and `convert` too, or the two do not fit each other.
    """
    external = regressor.get("model")
    reader = _load_regressor(regressor) if external else _abstract("regressor", regressor)
    networks = _abstract("generator", generator), reader
    _check_pair(*networks)
    return networks


def regressor_unit(regressor: Network | Regressor, config: Config) -> Unit:
    """The unit of what `load_networks` has read.

    Raises:
        UserError: see `unit_of`.
    """
    if isinstance(regressor, Regressor):
        return regressor.unit
    return unit_of(regressor.description, config)


def apply_of(regressor: Network | Regressor) -> Callable[[Any, Any], Any]:
    """The function (variables, images) -> predictions of what `load_networks` has read."""
    return regressor.apply if isinstance(regressor, Regressor) else regressor.module.apply


def _check_pair(generator_net: Network, regressor_net: Network | Regressor) -> None:
    if isinstance(regressor_net, Regressor):
        with _naming("regressor", "model"):
            regressor_net.check_size(generator_net.description["image_size"])
        return
    if regressor_net.kind not in REGRESSORS:
        raise UserError(f"config.regressor.checkpoint is a {regressor_net.kind}, not a regressor.")
    size = generator_net.description["image_size"]
    if regressor_net.description["image_size"] != size:
        raise UserError(
            f"The generator is of {size} pixels and the regressor of "
            f"{regressor_net.description['image_size']}; give two checkpoints of one image size."
        )


def parse_method(config: Config) -> Options:
    """Return the options of `config.method`, whose `name` says of which method.

    Raises:
        UserError: the name or an option is unknown, or a value is out of its range.
    """
    options = {key: value for key, value in config.items() if key != "name"}
    with naming_option():
        return method_options(config.get("name", ""), options)


@contextlib.contextmanager
def naming_option() -> Iterator[None]:
    """Name the options of a method as the command line has them."""
    try:
        yield
    except OptionError as error:
        raise UserError(f"config.method.{error}") from None


def parse_targets(text: str) -> list[Target]:
    """Read "0.2,0.8" or "40..50,max"; what is there twice, in float32, counts once.

    Raises:
        UserError: a part is not a number that is finite in float32, a range of two of them, the
            lower one first, min or max.
    """
    parts = [part.strip() for part in str(text).strip("()[] ").split(",") if part.strip()]
    targets = {}
    for part in parts:
        try:
            target = parse_target(part)
            with np.errstate(over="ignore"):
                if isinstance(target, float) and not np.isfinite(np.float32(target)):
                    raise ValueError
        except UserError as error:
            raise UserError(f"config.targets has '{part}': {error}") from None
        except ValueError:
            raise UserError(
                f"config.targets has '{part}', which is not a finite number in float32; "
                "give numbers separated by commas, such as 0.2,0.8, or ranges such as 40..50, "
                "min or max."
            ) from None
        targets.setdefault(plain(target), target)
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


def check_images(images: Any, size: int) -> np.ndarray:
    """Return images as float32 [B, size, size, 3] in [0, 1], or refuse them."""
    try:
        images = np.asarray(images)
        floats = np.issubdtype(images.dtype, np.floating)
        images = images.astype(np.float32) if floats else images
    except (ValueError, TypeError):
        raise UserError(
            f"images must be one array [B, {size}, {size}, 3]; these are of different sizes or are "
            "no numbers."
        ) from None
    if images.ndim != 4 or images.shape[1:] != (size, size, 3) or not len(images):
        raise UserError(
            f"images has shape {images.shape}; this generator needs [B, {size}, {size}, 3]."
        )
    if not floats or not (images.min() >= 0 and images.max() <= 1):
        raise UserError("images must be floats in [0, 1]; divide uint8 images by 255.")
    return images


def check_targets(targets: Any, count: int, unit: Unit) -> np.ndarray:
    """Return targets as float32 [B], or as objects where not all are numbers; or refuse them."""
    if isinstance(targets, str | Range):
        targets = [targets] * count
    if isinstance(targets, Sequence) and any(isinstance(t, str | Range) for t in targets):
        return _check_mixed(targets, count, unit)
    try:
        if np.iscomplexobj(targets):
            raise ValueError
        with np.errstate(over="ignore"):
            targets = np.broadcast_to(np.asarray(targets, np.float32), count)
    except (ValueError, TypeError):
        raise UserError(f"targets must be one number, or one for each of {count} images.") from None
    if not np.isfinite(unit.normalise(targets)).all():
        raise UserError(
            "targets holds a value that is not finite in float32; give one number for each image."
        )
    return targets


def _check_mixed(targets: Sequence[Any], count: int, unit: Unit) -> np.ndarray:
    if len(targets) != count:
        raise UserError(f"targets must be one target, or one for each of {count} images.")
    checked = np.empty(count, object)
    for i, target in enumerate(targets):
        if isinstance(target, str):
            try:
                target = parse_target(target)
            except UserError:
                raise
            except ValueError:
                raise UserError(
                    'targets must be one number, range such as Range(40, 50), "min" or "max", or '
                    f"one for each of {count} images; {target!r} is none of these."
                ) from None
        if isinstance(target, Range):
            unit.normalise_target(target)  # which must leave room between its ends
        elif not isinstance(target, str):
            target = float(check_targets(target, 1, unit)[0])
        checked[i] = target
    return checked


def check_masks(masks: Any, count: int, size: int) -> np.ndarray | None:
    """Return masks as bool [B, size, size], or None; or refuse them."""
    if masks is None:
        return None
    try:
        masks = np.asarray(masks)
    except ValueError:
        raise UserError("masks must be one array; these are of different sizes.") from None
    if masks.dtype != bool or masks.shape not in ((size, size), (count, size, size)):
        raise UserError(
            f"masks is of type {masks.dtype} and shape {masks.shape}; it must be bool and of shape "
            f"[{count}, {size}, {size}], or [{size}, {size}] for all images."
        )
    masks = np.broadcast_to(masks, (count, size, size))
    if not masks.any((1, 2)).all():
        raise UserError(
            f"masks[{int(masks.any((1, 2)).argmin())}] is empty; mark with True what may change."
        )
    return masks


def check_names(names: Sequence[str] | None, count: int) -> tuple[str, ...]:
    """Return a different name for each image: those given, or numbers."""
    if names is None:
        digits = max(4, len(str(count - 1)))
        return tuple(f"{i:0{digits}d}" for i in range(count))
    names = tuple(map(str, names))
    if len(names) != count or len(set(names)) != count:
        raise UserError(f"names must hold a different name for each of {count} images.")
    return names


def _check_fetched(sections: Mapping[str, Config]) -> None:
    """Says how to get the checkpoints that are missing and that the config knows how to get."""
    for role, config in sections.items():
        if config.get("fetch") and not Path(config["model"]).expanduser().exists():
            raise UserError(
                f"config.{role}.model={config['model']} is missing in {Path.cwd()}: "
                f"{command('fetch')} {config['fetch']} gets it."
            )
    missing = {
        role: config
        for role, config in sections.items()
        if config.get("original") and not _is_there(config)
    }
    if not missing.keys() & {"generator", "regressor"}:
        return
    lines = [
        "The PyTorch originals of this config's networks have to be fetched and converted once "
        f"(or pass other checkpoints); relative paths are seen from {Path.cwd()}:"
    ]
    for role, config in missing.items():
        purpose = f", only for {command('evaluate')}" if role == "oracle" else ""
        lines += [
            f"\nconfig.{role}.checkpoint={config['checkpoint']} is missing{purpose}",
            f"  from     {config['original']}",
            f"  convert  {command('convert')} {config['convert']} --out {config['checkpoint']}",
        ]
    raise UserError("\n".join(lines))


def _is_there(config: Config) -> bool:
    if config.get("model"):
        return True
    directory = find_checkpoint(config["checkpoint"])
    return (directory / "network.json").is_file() or is_diffusers(directory)


def _load(role: str, config: Config) -> Network:
    with _naming(role):
        return load_network(config["checkpoint"])


def _load_regressor(config: Config) -> Network | Regressor:
    if not config.get("model"):
        return _load("regressor", config)
    with _naming("regressor", "model"):
        return load_regressor(
            config["model"],
            config.get("preprocess") or "",
            config.get("output") or "",
            unit_of({}, config),
        )


def _abstract(role: str, config: Config) -> Network:
    directory = find_checkpoint(config["checkpoint"])
    with _naming(role):
        if config.get("convert") and not _is_there(config):
            description = describe_unconverted(config["convert"])
        else:
            description = read_description(directory)
        return Network(description, build_module(description), abstract_variables(description))


@contextlib.contextmanager
def _naming(role: str, key: str = "checkpoint") -> Iterator[None]:
    try:
        yield
    except UserError as error:
        raise UserError(f"config.{role}.{key}: {error}") from None
