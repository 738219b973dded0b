"""What a step along a direction does to images: to predictions, to the person, to attributes."""

import dataclasses
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from diffcf_jax.results.statistics import (
    Interval,
    bootstrap_mean,
    bootstrap_ratio,
    paired_difference,
)

from .attributes import Attribute
from .directions import Direction
from .probe import Probe
from .subject import REGRESSOR, Subject

Probes = Mapping[str, tuple[Probe, Probe]]


@dataclasses.dataclass(frozen=True)
class Measured:
    """The effect of one direction on each image, in the order of the subject's names.

    Every edit is followed both ways, and its effect is half of the difference. What any edit of
    that size does, whatever its direction, is not in it.

    Attributes:
        effect: of the edit on the prediction, tau [N], by reader.
        sham_size: mean |effect| of random edits of the same size on the regressor's prediction [N].
        distance: of the edited images from the reconstruction [N].
        sham_distance: the same of the random edits [N].
        moved: the effect on the codes of the image, once encoded again [N, D].
    """

    effect: Mapping[str, np.ndarray]
    sham_size: np.ndarray
    distance: np.ndarray
    sham_distance: np.ndarray
    moved: np.ndarray


@dataclasses.dataclass(frozen=True)
class Base:
    """The reconstructions, from which all changes are counted.

    Attributes:
        images: [N, H, W, 3].
        y: predictions [N], by reader.
    """

    images: np.ndarray
    y: Mapping[str, np.ndarray]


def reconstruct(subject: Subject) -> Base:
    """Decode all codes as they are, and read them."""
    images = subject.render(np.zeros_like(subject.codes))
    y = {name: subject.read(images, name) for name in subject.readers}
    return Base(images, y)


def measure(
    subject: Subject, base: Base, direction: Direction, amount: float, shams: int
) -> Measured:
    """Follow a direction in every image, with the estimate of the other half.

    The step is d = amount std(s . u) u, and what it does is (f(s + d) - f(s - d)) / 2. A sham is a
    random direction in s with the length of d, of its own for each image and direction.

    Args:
        subject: what is audited.
        base: its reconstructions.
        direction: which one.
        amount: of standard deviations.
        shams: random directions per image.
    """
    change = step(direction, subject, amount)
    edit = _follow(subject, base, change)
    followed = [
        _follow(subject, base, sham(change, subject.names, direction.name, k, subject.seed))
        for k in range(shams)
    ]
    return Measured(
        effect=edit.effect,
        sham_size=np.mean([np.abs(one.effect[REGRESSOR]) for one in followed], 0),
        distance=edit.distance,
        sham_distance=np.mean([one.distance for one in followed], 0),
        moved=(subject.encode(edit.images[0]) - subject.encode(edit.images[1])) / 2,
    )


@dataclasses.dataclass(frozen=True)
class _Followed:
    images: tuple[np.ndarray, np.ndarray]
    effect: Mapping[str, np.ndarray]
    distance: np.ndarray


def _follow(subject: Subject, base: Base, change: np.ndarray) -> _Followed:
    """Images with changes of s and with the opposite ones, and half of the difference they make."""
    forth, back = subject.render(change), subject.render(-change)
    effect = {
        name: (subject.read(forth, name) - subject.read(back, name)) / 2 for name in subject.readers
    }
    distance = (subject.distance(forth, base.images) + subject.distance(back, base.images)) / 2
    return _Followed((forth, back), effect, distance)


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
        `effect` (tau, with the `p` of Wilcoxon's signed-rank test), `sham_size`, `oracles` (name ->
        `effect` and `gap`, the regressor's effect minus the oracle's), `distance` (`edit` and
        `sham`), and `moved` (attribute -> by how many standard deviations of its probe's readings
        it has moved). An image is read by the probe of its own half, which had no part in the
        direction.
    """
    names, effect = subject.names, measured.effect[REGRESSOR]
    of = {name: name for name in names}
    return {
        "effect": paired_difference(
            dict.fromkeys(names, 0.0), dict(zip(names, effect, strict=True)), of
        ),
        "sham_size": bootstrap_mean(measured.sham_size),
        "oracles": {
            name: {
                "effect": bootstrap_mean(measured.effect[name]),
                "gap": bootstrap_mean(effect - measured.effect[name]),
            }
            for name in subject.oracles
        },
        "distance": {
            "edit": bootstrap_mean(measured.distance),
            "sham": bootstrap_mean(measured.sham_distance),
        },
        "moved": moves(measured.moved, subject, probes),
    }


def whole_effect(
    measured: Measured,
    codes: np.ndarray,
    subject: Subject,
    both: tuple[Probe, Probe],
    attribute: Attribute,
) -> Interval:
    """What the whole attribute adds to the prediction: from 0 to 1, or a standard deviation.

        sum_i tau_i / sum_i (what the probe says has moved), a ratio of means

    A step moves an attribute by some part of this only; the rest is extrapolated. A probe reads
    less than there is. So what it reads counts in units of the slope of its readings over the
    attribute, on the reconstructions of the images that it was not fitted to.

    Args:
        measured: the attribute's direction.
        codes: of the reconstructions, encoded again [N, D].
        subject: what is audited.
        both: the probes of the halves.
        attribute: the attribute.
    """
    own = subject.half, np.arange(len(subject.names))
    slopes = np.array([
        slope(attribute.values[subject.half != h], probe(codes[subject.half != h]))
        for h, probe in enumerate(both)
    ])  # fmt: skip
    moved = both_changes(measured.moved, both)[own] / slopes[subject.half]
    unit = 1.0 if attribute.binary else attribute.values.std()
    per = "from 0 to 1" if attribute.binary else "per standard deviation"
    return {**bootstrap_ratio(measured.effect[REGRESSOR], moved / unit, subject.names), "per": per}


def slope(x: np.ndarray, y: np.ndarray) -> float:
    """The slope of y over x, by least squares."""
    x = x - x.mean()
    return float(x @ y / (x @ x))


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
    read = both_changes(changes, both)[half, np.arange(len(changes))]
    return read / np.array([deviation or np.inf for deviation in deviations])[half]


def both_changes(changes: np.ndarray, both: tuple[Probe, Probe]) -> np.ndarray:
    """What changes of s [n, D] change in the readings of the two probes [2, n]."""
    return np.stack([changes @ probe.weights for probe in both])
