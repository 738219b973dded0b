"""What both sides are given: the same weights, images, targets, options and threads."""

import dataclasses
import inspect
import json
import os
import re
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl.flags import FlagValues
from safetensors.numpy import save_file

from diffcf_jax.checkpoint.description import MODULES, REGRESSORS
from diffcf_jax.checkpoint.export import export_network
from diffcf_jax.checkpoint.network import Network, abstract_variables, build_module
from diffcf_jax.checkpoint.original_flags import ORIGINALS, PRESETS
from diffcf_jax.checkpoint.store import load_network, save_network
from diffcf_jax.counterfactual.methods import METHODS
from diffcf_jax.diffusion.schedule import make_diffusion
from diffcf_jax.errors import UserError
from diffcf_jax.models.diffae import SemanticEncoder
from diffcf_jax.models.unet import UNet
from diffcf_jax.units import unit_of

# Of the originals' kinds, by image size: the generators' presets and the regressors'
_PRESETS = {
    ("ddpm", 64): "square64", ("diffae", 64): "square64",
    ("ddpm", 256): "celebahq", ("diffae", 256): "ffhq256",
}  # fmt: skip
Commands = Mapping[str, Callable[[], Any]]

_NOT_OF_THE_CONFIG = ("parent", "name", "dtype", "remat")  # fields of a module
_RESNET = {"kind": "resnet", "model": {}, "image_size": 64}
_DENSENET = {"kind": "densenet", "model": {}, "image_size": 256}


def write_job(folder: Path, config: Mapping[str, Any], batch: int, args: FlagValues) -> None:
    """Writes images, options and networks; the originals' weights only where they are asked.

    Raises:
        UserError: a checkpoint is missing, or the originals cannot build its network.
    """
    method = dict(config["method"])
    kind = METHODS[method["name"]].generator_kind
    if args.random_weights:
        generator, regressor = random_networks(
            kind, 64 if config["data"]["name"] == "squares" else 256
        )
    else:
        generator, regressor = (
            load_network(config[role]["checkpoint"]) for role in ("generator", "regressor")
        )
    for role, network in (("generator", generator), ("regressor", regressor)):
        save_network(folder / role, network.description, network.variables)
        if args.originals:
            save_file(export_network(network)[1], folder / f"{role}.safetensors")
    size = generator.description["image_size"]
    rng = np.random.default_rng(0)
    images = rng.random((max(batch, args.images), size, size, 3), np.float32)
    # Near what is read: an untrained network's predictions move by some 0.01 to 0.1 per iteration.
    y_hat = regressor.module.apply(regressor.variables, images)
    targets = y_hat + rng.uniform(-0.2, 0.2, len(images))
    # The config's threshold is in the label's unit, a network's in its own.
    method["threshold"] /= unit_of(regressor.description, config["regressor"]).scale
    if args.originals and kind == "ddpm":
        method["gradient_floor"] = 0.0  # theirs has none
    write(
        folder, images, targets, args, batch, method=method, network=generator.description,
        regressor=regressor.description,
    )  # fmt: skip


def write_training(folder: Path, config: Mapping[str, Any], batch: int, args: FlagValues) -> None:
    """Writes images and options of a training, which starts from each side's own random weights.

    Raises:
        UserError: the config trains neither a DDPM nor a Diff-AE.
    """
    if "network" not in config:
        raise UserError(
            "--config is neither for explaining (method) nor for training (network): give a config "
            "of one kind."
        )
    network = dict(config["network"])
    if network["kind"] not in ("ddpm", "diffae"):
        raise UserError(f"--config trains a {network['kind']}; eval.speed knows ddpm and diffae.")
    if args.images:
        raise UserError(
            "--images needs a config for explaining, and this one trains: leave --images out."
        )
    network["image_size"] = size = network.get("image_size") or config["image_size"]
    images = np.random.default_rng(0).random((batch, size, size, 3), np.float32)
    training = {key: config[key] for key in ("objective", "optimizer", "augment", "ema_decay")}
    write(
        folder, images, np.zeros(batch), args, batch, method=None, network=network,
        training=training,
    )  # fmt: skip


def _every_argument(network: Mapping[str, Any]) -> dict[str, Any]:
    """The description with the modules' defaults written out, which are not the originals'."""

    def fields(kind: type, given: Mapping[str, Any]) -> dict[str, Any]:
        defaults = {f.name: f.default for f in dataclasses.fields(kind)}
        return {k: v for k, v in (defaults | given).items() if k not in _NOT_OF_THE_CONFIG}

    model = dict(network["model"])
    if network["kind"] in REGRESSORS:
        return {**network, "model": fields(MODULES[network["kind"]], model)}
    if network["kind"] == "ddpm":
        model = fields(UNet, model)
    else:
        model["unet"] = fields(UNet, model["unet"])
        model["encoder"] = fields(SemanticEncoder, model["encoder"])
    process = inspect.signature(make_diffusion).parameters
    diffusion = {name: process[name].default for name in process} | network["diffusion"]
    return {**network, "model": model, "diffusion": diffusion}


def write(
    folder: Path, images: np.ndarray, targets: np.ndarray, args: FlagValues, batch: int, **job: Any
) -> None:
    """Writes what `read_job` reads; `job` holds method and networks.

    `settings`, where it is there, are the options of each whole run of the originals.
    """
    np.savez(folder / "images.npz", images=images, targets=np.asarray(targets, np.float32))
    originals = str(args.originals.resolve()) if args.originals else None
    job = {"settings": None} | job
    for role in {"network", "regressor"} & set(job):
        job[role] = _every_argument(job[role])
    job |= {
        "batch": batch, "images": args.images, "threads": args.threads, "originals": originals
    }  # fmt: skip
    (folder / "job.json").write_text(json.dumps(job))


def read_job(folder: Path) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
    """The options, the images [N, H, W, 3] in [0, 1] and the targets [N]."""
    arrays = np.load(folder / "images.npz")
    return json.loads((folder / "job.json").read_text()), arrays["images"], arrays["targets"]


def random_networks(kind: str, size: int) -> tuple[Network, Network]:
    """A generator of the originals' size, "ddpm" or "diffae", and a regressor, untrained."""
    describe = ORIGINALS[kind][1]
    description = describe(PRESETS[kind, _PRESETS[kind, size]], {})
    return tuple(
        Network(d, build_module(d), _random_variables(d))
        for d in (description, _RESNET if size == 64 else _DENSENET)
    )


def _random_variables(description: Mapping[str, Any]) -> Any:
    """Weights of unit gain, norms that scale by 1."""
    rng = np.random.default_rng(0)

    def leaf(path: tuple[Any, ...], shape: jax.ShapeDtypeStruct) -> np.ndarray:
        if len(shape.shape) > 1:
            values = rng.standard_normal(shape.shape, np.float32)
            return values / np.sqrt(np.prod(shape.shape[:-1], dtype=np.float32))
        return np.full(shape.shape, path[-1].key in ("scale", "var"), np.float32)

    return jax.tree_util.tree_map_with_path(leaf, abstract_variables(description))


def serve(prepare: Callable[[Path], Commands]) -> None:
    """Answers commands on stdin, one per line, each with a line of JSON.

    "prepare" calls `prepare`, which returns the other commands by name: "iterate" runs one
    iteration, "explain" explains the job's images and saves the counterfactuals, "check" saves what
    the generator makes of them and answers with the predictions for them. "memory" answers with the
    most bytes that the process ever held.
    """
    folder = Path(sys.argv[1])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever else is printed
    threads = json.loads((folder / "job.json").read_text())["threads"]
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    commands: Commands = {"memory": _peak_bytes}
    for line in sys.stdin:
        command, result = line.strip(), None
        start, cpu = time.monotonic(), time.process_time()
        if command == "prepare":
            commands = commands | prepare(folder)
        else:
            result = commands[command]()
        answer = {
            "seconds": time.monotonic() - start, "cpu_seconds": time.process_time() - cpu,
            "result": result,
        }  # fmt: skip
        print(json.dumps(answer), file=answers, flush=True)


def _peak_bytes() -> int:
    # Not ru_maxrss, which begins at what the parent process held when it started this one.
    (peak,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(peak) * 1024
