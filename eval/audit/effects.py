"""What a step along a direction does to images: to predictions, to the person, to attributes."""

import dataclasses
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from diffcf_jax.results.statistics import Interval, bootstrap_mean, paired_difference

from .directions import Direction
from .probe import Probe
from .subject import REGRESSOR, Subject

Probes = Mapping[str, tuple[Probe, Probe]]


@dataclasses.dataclass(frozen=True)
class Measured:
    """The effect of one direction on each image, in the order of the subject's names.

    Attributes:
        edit: what an edit adds to the prediction for the reconstruction [N], by reader.
        sham: the same of random edits of the same size, their mean [N], by reader.
        sham_size: mean |change| of the regressor's prediction by a random edit [N].
        distance: of the edit from the reconstruction [N].
        sham_distance: of the random edits, their mean [N].
        moved: what the edit changes in the codes of the image, once encoded again [N, D].
    """

    edit: Mapping[str, np.ndarray]
    sham: Mapping[str, np.ndarray]
    sham_size: np.ndarray
    distance: np.ndarray
    sham_distance: np.ndarray
    moved: np.ndarray

    def effect(self, reader: str = REGRESSOR) -> np.ndarray:
        """What the edit adds beyond random edits, tau [N]."""
        return self.edit[reader] - self.sham[reader]


@dataclasses.dataclass(frozen=True)
class Base:
    """The reconstructions, from which all changes are counted.

    Attributes:
        images: [N, H, W, 3].
        y: predictions [N], by reader.
        codes: of the reconstructions, encoded again [N, D].
    """

    images: np.ndarray
    y: Mapping[str, np.ndarray]
    codes: np.ndarray


def reconstruct(subject: Subject) -> Base:
    """Decode all codes as they are, and read them."""
    images = subject.render(np.zeros_like(subject.codes))
    y = {name: subject.read(images, name) for name in subject.readers}
    return Base(images, y, subject.encode(images))


def measure(
    subject: Subject, base: Base, direction: Direction, amount: float, shams: int
) -> Measured:
    """Follow a direction in every image, with the estimate of the other half.

    The step is d = amount std(s . u) u. A sham is a random direction in s with the length of d, of
    its own for each image and direction, and followed both ways.

    Args:
        subject: what is audited.
        base: its reconstructions.
        direction: which one.
        amount: of standard deviations.
        shams: random directions per image.
    """
    change = step(direction, subject, amount)
    images = subject.render(change)
    edit = {name: subject.read(images, name) - base.y[name] for name in subject.readers}
    readings: dict[str, list[np.ndarray]] = {name: [] for name in subject.readers}
    distances = []
    for k in range(shams):
        random = sham(change, subject.names, direction.name, k, subject.seed)
        for other in (random, -random):
            drawn = subject.render(other)
            distances.append(subject.distance(drawn, base.images))
            for name in subject.readers:
                readings[name].append(subject.read(drawn, name) - base.y[name])
    return Measured(
        edit=edit,
        sham={name: np.mean(found, axis=0) for name, found in readings.items()},
        sham_size=np.abs(readings[REGRESSOR]).mean(0),
        distance=subject.distance(images, base.images),
        sham_distance=np.mean(distances, axis=0),
        moved=subject.encode(images) - base.codes,
    )


def step(direction: Direction, subject: Subject, amount: float) -> np.ndarray:
    """The change of each image's s [N, D] that is `amount` standard deviations of a direction."""
    sizes = amount * direction.steps(subject.codes)
    return sizes[1 - subject.half][:, None] * direction.for_images(subject.half)


def sham(
    change: np.ndarray, names: Sequence[str], direction: str, number: int, seed: int
) -> np.ndarray:
    """Random directions with the lengths of the changes [N, D].

    They depend on the image's name, the direction's, the number and the seed, and on nothing else.
    """
    keys = [[seed, number, *(zlib.crc32(text.encode()) for text in (n, direction))] for n in names]
    drawn = np.stack([np.random.default_rng(k).standard_normal(change.shape[1]) for k in keys])
    sizes = np.linalg.norm(change, axis=1) / np.linalg.norm(drawn, axis=1)
    return sizes[:, None] * drawn


def summarise(measured: Measured, subject: Subject, probes: Probes) -> dict[str, Any]:
    """The means over the images, each with its interval.

    Returns:
        `effect` (tau, with the `p` of Wilcoxon's signed-rank test), `edit`, `sham`, `sham_size`,
        `oracles` (name -> `effect` and `gap`, the regressor's effect minus the oracle's),
        `distance` (`edit` and `sham`), and `moved` (attribute -> by how many standard deviations of
        its probe's readings it has moved). An image is read by the probe of its own half, which had
        no part in the direction.
    """
    names = subject.names
    pairs = [dict(zip(names, x, strict=True)) for x in (measured.sham[REGRESSOR],
                                                        measured.edit[REGRESSOR])]  # fmt: skip
    effect = measured.effect()
    return {
        "effect": paired_difference(*pairs, {name: name for name in names}),
        "edit": bootstrap_mean(measured.edit[REGRESSOR]),
        "sham": bootstrap_mean(measured.sham[REGRESSOR]),
        "sham_size": bootstrap_mean(measured.sham_size),
        "oracles": {
            name: {
                "effect": bootstrap_mean(measured.effect(name)),
                "gap": bootstrap_mean(effect - measured.effect(name)),
            }
            for name in subject.oracles
        },
        "distance": {
            "edit": bootstrap_mean(measured.distance),
            "sham": bootstrap_mean(measured.sham_distance),
        },
        "moved": moves(measured.moved, subject, probes),
    }


def moves(moved: np.ndarray, subject: Subject, probes: Probes) -> dict[str, Interval]:
    """By how many standard deviations of its probe's readings each attribute has moved."""
    found = {}
    for name, both in probes.items():
        read = probe_changes(moved, subject.half, both, subject.codes)
        found[name] = bootstrap_mean(read)
    return found


def probe_changes(
    changes: np.ndarray, half: np.ndarray, both: tuple[Probe, Probe], codes: np.ndarray
) -> np.ndarray:
    """What changes of s [n, D] change in the readings of each half's probe, in their deviations.

    Args:
        changes: of s.
        half: which probe reads each of them [n].
        both: the probes of the halves.
        codes: s of all images, whose readings have a standard deviation of 1 [N, D].
    """
    deviations = [probe(codes).std() for probe in both]
    read = np.stack([
        changes @ probe.weights / (deviation or np.inf)
        for probe, deviation in zip(both, deviations, strict=True)
    ])  # fmt: skip
    return read[half, np.arange(len(changes))]
