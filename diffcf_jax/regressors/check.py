"""Whether a regressor is read and prepared as its authors meant it, before a long run.

    diffcf check-regressor age-v1.onnx --images FOLDER --preprocess imagenet --workdir check

prints one page of text, and writes it with a picture. The exit status is 1 when something is wrong.
"""

import dataclasses
import importlib.util
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffcf_jax.regressors.onnx.parse import read_model
from diffcf_jax.regressors.preprocess import Preprocess
from diffcf_jax.regressors.regressor import Regressor

_STEP = 0.05  # length of a finite difference, of images whose pixels lie in [0, 1]
_LARGEST_NATIVE = 1e-3  # relative difference to the native runtime
_LARGEST_SLOPE = 0.2  # relative difference between gradient and finite difference
_BETTER = 0.8  # of the error: a variant below that fits the labels clearly better


@dataclasses.dataclass(frozen=True)
class Findings:
    """What a check has found.

    Attributes:
        values: predictions [B], in the regressor's unit.
        gradients: [B, H, W, 3], of the predictions.
        lines: the page of text.
        problems: what is wrong, a sentence each.
    """

    values: np.ndarray
    gradients: np.ndarray
    lines: list[str]
    problems: list[str]


def check_regressor(
    regressor: Regressor, images: np.ndarray, labels: np.ndarray | None = None
) -> Findings:
    """Compare a regressor with its native runtime, finite differences and variants of its input.

    Args:
        regressor: see `load_regressor`.
        images: [B, H, W, 3] in [0, 1].
        labels: of the images [B], NaN where there is none; None: none at all.

    Raises:
        UserError: the regressor does not take these images.
    """
    predict = jax.jit(regressor.apply)
    denormalise = regressor.unit.denormalise
    values = denormalise(np.asarray(predict(regressor.variables, images), np.float64))
    slope, speed = _gradients(regressor, images)
    gradients = regressor.unit.scale * slope
    unit = regressor.unit.name or ""
    lines = [
        f"model        {regressor.source}",
        f"preprocess   {regressor.preprocess or 'none'}",
        f"output       {regressor.output or 'its only number'}",
        f"predictions  {values.mean():.4g} on average, standard deviation {values.std():.4g}, "
        f"{values.min():.4g} to {values.max():.4g} {unit}".rstrip(),
    ]
    problems = []
    if not np.isfinite(values).all():
        problems.append("Predictions are not finite.")
    elif len(values) > 1 and np.ptp(values) <= 1e-6 * max(1.0, np.abs(values).max()):
        problems.append("All images get the same prediction: is the right output chosen?")
    for part in (
        _native(regressor, images, values),
        _slopes(regressor, predict, images, gradients),
        [speed],
        _variants(regressor, images, values, labels),
    ):
        for line in part:
            if isinstance(line, Problem):
                problems.append(str(line))
            else:
                lines.append(line)
    lines += [f"PROBLEM      {problem}" for problem in problems] or ["No problem was found."]
    return Findings(values, gradients, lines, problems)


class Problem(str):
    """A line that says what is wrong."""


def _gradients(regressor: Regressor, images: np.ndarray) -> tuple[np.ndarray, str]:
    """Gradients of what `apply` returns [B, H, W, 3], and what they cost."""

    def one(variables: Any, x: jax.Array) -> jax.Array:
        return regressor.apply(variables, x[None])[0]

    each = jax.jit(jax.vmap(jax.value_and_grad(one, 1), (None, 0)))
    start = time.process_time()
    program = each.lower(regressor.variables, images).compile()
    compiled = time.process_time() - start
    _, gradients = jax.block_until_ready(program(regressor.variables, images))
    start, cpu = time.monotonic(), time.process_time()
    jax.block_until_ready(program(regressor.variables, images))
    wall, cpu = time.monotonic() - start, time.process_time() - cpu
    memory = program.memory_analysis()
    megabytes = memory.temp_size_in_bytes / 2**20 if memory else float("nan")
    line = (
        f"speed        value and gradient of {len(images)} images: {wall:.2g} s ({cpu:.2g} CPU "
        f"seconds), {megabytes:.0f} MB of temporary memory; compiled in {compiled:.2g} CPU seconds"
    )
    return np.asarray(gradients, np.float64), line


def _slopes(
    regressor: Regressor, predict: Callable[..., Any], images: np.ndarray, gradients: np.ndarray
) -> Iterator[str]:
    """Norms of the gradients, and finite differences along them."""
    norms = np.sqrt(np.square(gradients).sum((1, 2, 3)))
    zeros = (gradients == 0).mean()
    yield (
        f"gradients    norm {np.median(norms):.3g} (median), {norms.min():.3g} to "
        f"{norms.max():.3g}; {100 * zeros:.1f}% of their elements are 0"
    )
    if not np.isfinite(norms).all():
        yield Problem("Gradients are not finite.")
        return
    if not norms.any():
        yield Problem(
            "The gradient is 0 everywhere: the model rounds, or decides by ArgMax; explain an "
            "output before that."
        )
        return
    ways = gradients / np.maximum(norms, 1e-30)[:, None, None, None]
    ends = [
        regressor.unit.denormalise(
            np.asarray(predict(regressor.variables, (images + s * ways).astype(np.float32)))
        )
        for s in (_STEP / 2, -_STEP / 2)
    ]
    found = (ends[0].astype(np.float64) - ends[1]) / _STEP
    difference = float(np.median(np.abs(found - norms) / np.maximum(norms, 1e-30)))
    yield (
        f"differences  along the gradient, over a distance of {_STEP}: {100 * difference:.2g}% "
        "from its norm (median)"
    )
    if difference > _LARGEST_SLOPE:
        yield Problem(
            f"Finite differences are {100 * difference:.0f}% from the gradient: the model is not "
            "smooth, or its derivative is wrong."
        )


def _native(regressor: Regressor, images: np.ndarray, values: np.ndarray) -> Iterator[str]:
    """Predictions beside those of the library that the model is of."""
    model, prepared = regressor.model, np.asarray(regressor.preprocess(jnp.asarray(images)))
    if model.native is not None:
        name, call = model.native
        outputs = call(prepared)
    elif not regressor.source.endswith(".onnx"):
        return
    elif importlib.util.find_spec("onnxruntime") is None:
        yield "onnxruntime  is not installed: predictions were not compared with it"
        return
    else:
        name, outputs = "onnxruntime", _onnxruntime(regressor, prepared)
    native = np.asarray(regressor.output(jnp.asarray(outputs)), np.float64)
    difference = float(np.max(np.abs(native - values)) / max(np.abs(native).max(), 1e-30))
    yield f"{name:<13}predictions differ by {difference:.1e} of the largest"
    if not difference <= _LARGEST_NATIVE:
        yield Problem(f"Predictions are {100 * difference:.2g}% from those of {name}.")


def _onnxruntime(regressor: Regressor, prepared: np.ndarray) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(regressor.source, providers=["CPUExecutionProvider"])
    image = read_model(regressor.source).graph.inputs[0]
    name = regressor.output.name or session.get_outputs()[0].name
    prepared = prepared.astype(image.dtype)
    return np.concatenate([session.run([name], {image.name: x[None]})[0] for x in prepared])


def _variants(
    regressor: Regressor, images: np.ndarray, values: np.ndarray, labels: np.ndarray | None
) -> Iterator[str]:
    """What other pre-processing would read, to find a mistake in the one that is given."""
    unit = f" {regressor.unit.name}" if regressor.unit.name else ""
    error = None
    known = np.zeros(len(values), bool) if labels is None else np.isfinite(labels)
    if known.any():
        error = float(np.abs(values - labels)[known].mean())
        yield f"labels       mean |prediction - label| {error:.4g}{unit} ({known.sum()} labels)"
    for name, changed in variants(regressor.preprocess):
        variant = dataclasses.replace(regressor, preprocess=changed)
        other = np.asarray(jax.jit(variant)(images))
        shift = float((other - values).mean())
        direction = "higher" if shift >= 0 else "lower"
        line = f"variant      {name}: {abs(shift):.3g}{unit} {direction} on average"
        if error is None:
            yield line
            continue
        with_variant = float(np.abs(other - labels)[known].mean())
        yield f"{line}, mean |prediction - label| {with_variant:.4g}"
        if with_variant < _BETTER * error:
            yield Problem(
                f"The labels fit better with {name} ({with_variant:.3g} instead of {error:.3g}"
                f"{unit}): is preprocess right?"
            )


def variants(preprocess: Preprocess) -> Sequence[tuple[str, Preprocess]]:
    """Return the usual mistakes in a pre-processing, each with its name."""
    found = []

    def add(name: str, **changes: Any) -> None:
        found.append((name, dataclasses.replace(preprocess, **changes)))

    if preprocess.channels != "grey":
        other = "bgr" if preprocess.channels == "rgb" else "rgb"
        add(f"channels={other}", channels=other)
    other = 1 if preprocess.range == 255 else 255
    add(f"range={other}", range=float(other))
    if any(preprocess.mean) or set(preprocess.std) != {1.0}:
        add("no mean and std", mean=(0.0,), std=(1.0,))
    if preprocess.size is not None:
        method = "bicubic" if preprocess.method == "bilinear" else "bilinear"
        add(f"method={method}", method=method)
        add("another antialias", antialias=not preprocess.antialias)
    return found
