"""Measures the counterfactuals of a run one by one, and sums up what was found."""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from .jacobian import effective_rank, spectrum
from .measures import CUT, PATH, cycle, lengths, nearest, tangent_shares
from .subject import Case, Subject

Array = jax.Array


class Probe:
    """The networks of a run as compiled functions of one image or one code.

    Args:
        subject: the run.
    """

    def __init__(self, subject: Subject):
        method = subject.method
        self._params = subject.params
        # A function of all it reads, so that every case runs the same compiled program.
        self.generate = lambda args, z: method.render(args["params"], z, args["x_T"])
        self._decode = jax.jit(self.generate)
        self._encode = jax.jit(
            lambda params, image: method.encode(params["generator"], 2 * image[None] - 1)[0]
        )
        readers = {"regressor": (method.regressor, subject.params["regressor"])}
        readers |= {name: (one.apply, one.variables) for name, one in subject.oracles.items()}
        self._readers = {
            name: (jax.jit(jax.value_and_grad(lambda x, v, f=f: f(v, x[None])[0])), variables)
            for name, (f, variables) in readers.items()
        }

    def args(self, case: Case) -> dict[str, Any]:
        """What `generate` takes besides z."""
        return {"params": self._params, "x_T": case.x_T}

    def decode(self, case: Case, z: Array) -> Array:
        """The image [H, W, 3] of a code, in [0, 1] and not rounded."""
        return self._decode(self.args(case), z)

    def encode(self, image: Array) -> Array:
        """The code [D] of an image."""
        return self._encode(self._params, image)

    def read(self, image: Array, name: str = "regressor") -> tuple[float, np.ndarray]:
        """What a regressor reads, and its gradient [H, W, 3]."""
        reader, variables = self._readers[name]
        y, gradient = reader(image, variables)
        return float(y), np.asarray(gradient, np.float64)

    def gradients(self, image: Array) -> dict[str, np.ndarray]:
        """The gradients of the regressor and of each oracle."""
        return {name: self.read(image, name)[1] for name in self._readers}


def measure(subject: Subject, count: int) -> Iterator[dict[str, Any]]:
    """Measure each counterfactual.

    Args:
        subject: the run.
        count: of leading singular values.

    Yields:
        For each the fields of `Nearest`, `Lengths` and `Cycle`, the singular values, and the
        `tangent` shares of the gradients of regressor and oracles at the reconstruction, of the
        regressor's at the reconstruction of the next image ("another image"), and of a random
        change of the image.
    """
    probe = Probe(subject)
    starts = [probe.decode(case, case.z_0) for case in subject.cases]
    for i, case in enumerate(subject.cases):
        key = jax.random.fold_in(jax.random.key(0), i)
        gradients = probe.gradients(starts[i])
        if len(starts) > 1:
            gradients["another image"] = probe.read(starts[(i + 1) % len(starts)])[1]
        gradients["random"] = np.asarray(jax.random.normal(key, starts[i].shape))
        yield {
            "name": case.name,
            "target": case.target,
            "decode_error": case.decode_error,
            **_measure(subject, probe, case, gradients, count, key),
        }


def _measure(
    subject: Subject,
    probe: Probe,
    case: Case,
    gradients: Mapping[str, np.ndarray],
    count: int,
    key: Array,
) -> dict[str, Any]:
    codes = [case.z_0 + share * (case.z - case.z_0) for share in PATH]
    images = [probe.decode(case, z) for z in codes]
    (y_0, gradient_0), (y, gradient) = probe.read(images[0]), probe.read(images[-1])
    rise, change = y - y_0, np.asarray(case.z - case.z_0)
    at_0, at = (
        spectrum(probe.generate, probe.args(case), z, count, key) for z in (case.z_0, case.z)
    )
    start, end = at_0.above(CUT), at.above(CUT)
    shares = {name: tangent_shares(at_0, g) for name, g in gradients.items()}
    kept, n = len(start.values), images[0].size
    return {
        "rise": subject.unit.scale * rise,
        "dimensions": change.size,
        "exact": at_0.exact,
        "kept": kept,
        "effective_rank": effective_rank(at_0.values),
        "singular_values": at_0.values.tolist(),
        "tangent": {
            **{name: float(share[kept - 1]) for name, share in shares.items()},
            "expected of a random change": math.sqrt(kept / n),
        },
        "tangent_by_k": {name: share.tolist() for name, share in shares.items()},
        "cycle": dataclasses.asdict(cycle(probe.encode, lambda z: probe.decode(case, z), codes)),
        "nearest_at_start": dataclasses.asdict(nearest(start, change, gradient_0, rise)),
        "nearest": dataclasses.asdict(nearest(end, change, gradient, rise)),
        "lengths": dataclasses.asdict(lengths(images, start, gradient_0, rise)),
    }


def summarise(cases: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Return mean, lowest and highest of every number, by its path such as "lengths.path"."""
    found: dict[str, list[float]] = {}
    for case in cases:
        for name, value in _numbers(case):
            found.setdefault(name, []).append(value)
    return {
        name: {"mean": float(np.mean(x)), "low": min(x), "high": max(x)}
        for name, x in found.items()
    }


def _numbers(case: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for key in ("rise", "kept", "effective_rank", "decode_error"):
        yield key, float(case[key])
    for key in ("tangent", "nearest_at_start", "nearest", "lengths"):
        for name, value in case[key].items():
            yield f"{key}.{name}", value
    yield "cycle.code_at_input", case["cycle"]["code"][0]
    yield "cycle.code", case["cycle"]["code"][-1]
    yield "cycle.image", case["cycle"]["image"][-1]
    yield "cycle.followed", case["cycle"]["followed"]
    yield "lengths.ratio", case["lengths"]["straight"] / case["lengths"]["shortest"]
    yield "lengths.bend", case["lengths"]["path"] / case["lengths"]["straight"]
