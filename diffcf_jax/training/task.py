"""What is trained on what: a network, its objective and the data, made to fit each other."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from diffcf_jax.checkpoint.network import REGRESSORS, Network, build_module, fingerprint
from diffcf_jax.checkpoint.store import load_network
from diffcf_jax.data.loader import note_skipped, read_rows
from diffcf_jax.data.open import open_training_data
from diffcf_jax.errors import UserError
from diffcf_jax.sampling import code_channels
from diffcf_jax.training.augment import GEOMETRY, augment
from diffcf_jax.training.config import Augmentation, TrainConfig
from diffcf_jax.training.latent import Codes, encode
from diffcf_jax.training.objectives import Objective, make_objective

Array = jax.Array

PRECISIONS = {"float32": None, "bfloat16": jnp.bfloat16}


@dataclasses.dataclass(frozen=True, eq=False)
class HeldOut:
    """What a training is judged by: n examples that it never sees.

    Attributes:
        inputs: of the objective, [n, ...]; images as uint8.
        labels: float32 [n].
        images: uint8 [n, H, W, 3].
    """

    inputs: np.ndarray
    labels: np.ndarray
    images: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """A training, ready to be run.

    Attributes:
        network: the description of what comes out.
        objective: what it is trained to do.
        train_set: for `data.loader.batches`.
        held_out: what it is judged by.
        prepare: (a batch of `train_set`, key) -> inputs of the objective's loss.
        statistics: variables of the network that the data determine.
        skipped: why a file could not be read, by name; of those that were read to make the task.
        contents: a hash of what each of the config's keys leads to: names and labels of `data`,
            parameters of `objective.diffae`.
    """

    network: dict[str, Any]
    objective: Objective
    train_set: Any
    held_out: HeldOut
    prepare: Callable[[Array, Array], Any]
    statistics: Mapping[str, Any]
    skipped: Mapping[str, str]
    contents: Mapping[str, str]


def make_task(config: TrainConfig, batch_size: int, mesh: Mesh) -> Task:
    """Opens the data and makes what is trained on them.

    Args:
        config: `network` is a description, see `Network.description`. A regressor's `unit`, `mean`
            and `scale` are those of the training labels where they are missing or None; a latent
            DPM takes its size from its Diff-AE, the network directory `objective.diffae`. Held-out
            images are spread evenly over those that there are.
        batch_size: images at a time where a Diff-AE encodes them.
        mesh: the devices.

    Raises:
        UserError: something in the config is unknown or does not fit.
    """
    network, objective = dict(config.network), dict(config.objective)
    for key in ("kind", "model"):
        if key not in network:
            raise UserError(f"config.network.{key} is missing: give a network's {key}.")
    if config.image_size is not None:
        network["image_size"] = config.image_size
    diffae = None
    if network["kind"] == "latent_dpm":
        diffae = _load_diffae(objective.pop("diffae", ""))
    if network["kind"] == "ddpm" and config.augment.geometric:
        network["model"] = {**network["model"], "geometry_channels": GEOMETRY}
    network = {**network, "image_size": _image_size(network, diffae)}
    train_set, held_out_set = open_training_data(config.data, network["image_size"])
    contents = {"data": _fingerprint(train_set, held_out_set)}
    if diffae is not None:
        contents["objective.diffae"] = fingerprint(diffae.variables)
    network = _complete(network, train_set, diffae)
    goal = make_objective(network, make_module(network, config.precision), objective, diffae)

    count = min(config.evaluation.images, len(held_out_set))
    # Evenly spread, because neighbours in a grid look alike.
    chosen = np.linspace(0, len(held_out_set) - 1, count).astype(int)
    bad, bad_held_out = {}, {}  # what cannot be read
    images, labels = read(held_out_set, chosen, bad_held_out)
    held_out = HeldOut(images, labels, images)
    if diffae is None:

        def prepare(batch: Array, key: Array) -> Any:
            return loss_inputs(network["kind"], batch, key, config.augment)

        return Task(network, goal, train_set, held_out, prepare, {}, bad_held_out, contents)

    def codes_of(data: Any, rows: np.ndarray, bad: dict[str, str]) -> np.ndarray:
        return encode(diffae, lambda i: read(data, rows[i], bad)[:1], len(rows), batch_size, mesh)

    codes = codes_of(train_set, np.arange(len(train_set)), bad)
    train_codes = Codes(codes, np.asarray(train_set.labels), list(train_set.names))
    held_out = HeldOut(codes_of(held_out_set, chosen, bad_held_out), labels, images)
    return Task(
        network, goal, train_codes, held_out, lambda batch, key: batch, train_codes.statistics,
        bad | bad_held_out, contents,
    )  # fmt: skip


def make_module(network: Mapping[str, Any], precision: str) -> nn.Module:
    """Makes a network's module, which computes in this precision."""
    module = build_module(network)
    dtype = PRECISIONS[precision]
    return module if dtype is None else module.clone(dtype=dtype)


def to_unit(batch: Array) -> Array:
    """Images as an objective takes them: uint8 becomes float32 in [0, 1], codes stay."""
    return batch.astype(jnp.float32) / 255 if batch.dtype == jnp.uint8 else batch


def loss_inputs(kind: str, batch: Array, key: Array, options: Augmentation) -> Any:
    """What the loss of a network of this kind gets of a batch of images, see `augment`.

    A DDPM gets the images and what was done to their geometry, all others the images.
    """
    images, geometry = augment(to_unit(batch), key, options)
    return (images, geometry) if kind == "ddpm" else images


def read(data: Any, rows: np.ndarray, skipped: dict[str, str]) -> tuple[np.ndarray, np.ndarray]:
    """Some images, uint8 [n, H, W, 3], and labels, float32 [n], of a data set.

    Adds to `skipped` what cannot be read, see `data.loader.note_skipped`.
    """
    if hasattr(data, "images"):
        return data.images[rows], np.asarray(data.labels[rows], np.float32)
    images, labels, bad = read_rows(data, rows)
    note_skipped(skipped, bad, data)
    return images, labels


def _fingerprint(*sets: Any) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for data in sets:
        digest.update(json.dumps(list(data.names)).encode())
        digest.update(np.asarray(data.labels, np.float64).tobytes())
    return digest.hexdigest()


def _load_diffae(directory: str) -> Network:
    try:
        diffae = load_network(directory)
    except UserError as error:
        raise UserError(f"config.objective.diffae: {error}") from None
    if diffae.kind != "diffae":
        raise UserError(f"config.objective.diffae is a {diffae.kind}, not a diffae.")
    return diffae


def _image_size(network: Mapping[str, Any], diffae: Network | None) -> int:
    size = network.get("image_size")
    if diffae is None:
        if not size:
            raise UserError("config.network.image_size is missing; give it in pixels.")
        return size
    theirs = diffae.description["image_size"]
    if size not in (None, theirs):
        raise UserError(
            f"config.network.image_size={size}, but the Diff-AE of config.objective.diffae takes "
            f"{theirs} pixels; leave it out."
        )
    return theirs


def _complete(network: dict[str, Any], train_set: Any, diffae: Network | None) -> dict[str, Any]:
    if diffae is not None:
        channels = code_channels(diffae)
        given = network["model"].get("channels")
        if given not in (None, channels):
            raise UserError(
                f"config.network.model.channels={given}, but the codes of config.objective.diffae "
                f"have {channels} numbers; leave it out."
            )
        return {**network, "model": {**network["model"], "channels": channels}}
    if network["kind"] not in REGRESSORS:
        return network
    labels = np.asarray(train_set.labels, np.float64)
    if not np.isfinite(labels).all():
        raise UserError(
            "A regressor needs a label for every image; give config.data.labels, a CSV file with "
            "the columns name,y."
        )
    mean, scale = network.get("mean"), network.get("scale")
    if scale is None and labels.std() == 0:
        raise UserError(f"All labels are {labels[0]:g}; a regressor has nothing to learn from.")
    return {
        **network,
        "unit": network.get("unit") or getattr(train_set, "unit", None),
        "mean": float(labels.mean()) if mean is None else float(mean),
        "scale": float(labels.std()) if scale is None else float(scale),
        "labels": [float(labels.min()), float(labels.max())],
    }
