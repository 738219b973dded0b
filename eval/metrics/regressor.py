"""What the explained regressor and the oracles say of the saved images."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from diffcf_jax.regressors.readings import Reader, open_reader
from diffcf_jax.target import nearest
from diffcf_jax.training.frechet import features

from .batch import BATCH_SIZE, Batch, Features, Measure, in_batches, padded

# What ends the name of what an oracle says of x' and of x, in the label's unit
READING = "_reading"
INPUT_READING = f"_input{READING}"

_ATTACK_STEP = 4 / 255  # the largest change of a pixel in one step of the control's attack
_COUT_STEPS = 50
_NOISE = 2 / 255
_FOLLOWS = 0.5  # of the explained regressor's change


class Judge:
    """A regressor that is compiled once per image size, for BATCH_SIZE images.

    Attributes:
        features: what its last layer sees; None where that is not known.
    """

    features: Features | None = None

    def __init__(self, reader: Reader):
        """Takes the regressor as it was opened."""
        self._reader, self._unit, self._variables = reader, reader.unit, reader.variables
        self._apply = jax.jit(reader.apply)
        self._attack = jax.jit(
            lambda variables, *arrays: _attack(lambda x: reader.apply(variables, x), *arrays)
        )
        if network := reader.network:
            look = jax.jit(lambda variables, x: features(network.module, variables, x))
            self.features = in_batches(lambda x: look(network.variables, x))

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Returns predictions [B] in the label's unit for images [B, H, W, 3] in [0, 1].

        Raises:
            UserError: the images are of another size than the network's.
        """
        self._reader.check_size(images)
        y = self._apply(self._variables, padded(images))
        return self._unit.denormalise(np.asarray(y)[: len(images)])

    def attack(
        self, images: np.ndarray, targets: Sequence[float | str], threshold: float, steps: int
    ) -> np.ndarray:
        """Moves pixels until the regressor reads the target, with nothing to keep them an image.

        See `_attack`. An image whose target is min or max stays as it is.

        Args:
            images: [B, H, W, 3] in [0, 1].
            targets: one per image, in the label's unit.
            threshold: in the label's unit.
            steps: gradients per image at most.

        Returns:
            8-bit values in [0, 1], as a saved image has them; dithered, because rounding would undo
            changes of less than half a level.
        """
        wanted = [
            y if (end := nearest(float(y), target)) is None else end
            for y, target in zip(self(images), targets, strict=True)
        ]
        aim = self._unit.normalise(np.asarray(wanted)).astype(np.float32)
        within = np.float32(threshold / abs(self._unit.scale))
        goal = np.full(BATCH_SIZE, np.nan, np.float32)  # where there is no image, nothing to reach
        goal[: len(aim)] = aim
        moved = self._attack(self._variables, padded(images), goal, within, steps)
        dither = np.random.default_rng(0).random(images.shape[1:])
        levels = np.floor(np.asarray(moved)[: len(images)] * 255 + dither)
        return (np.clip(levels, 0, 255) / 255).astype(np.float32)


def load_judge(spec: str | Path, config: Mapping[str, Any] | None = None) -> Judge:
    """Loads a regressor, see `open_reader`."""
    return Judge(open_reader(spec, config))


def validity(threshold: float) -> Measure:
    """What the explained regressor reads: success_rate, final_error."""

    def measure(batch: Batch, y: np.ndarray) -> Mapping[str, np.ndarray]:
        success, misses = judged(y, batch.targets, threshold)
        return {"success_rate": success, "final_error": misses}

    return measure


def oracle(name: str, predict: Features, threshold: float) -> Measure:
    """What a second regressor, trained independently, reads.

    NAME_mae, _error, _success_rate; where the explained regressor's reading has changed by more
    than the threshold, _direction and _follows; and NAME_reading and NAME_input_reading, which are
    no metrics.
    """

    def measure(batch: Batch, y: np.ndarray) -> Mapping[str, np.ndarray]:
        y_oracle, before = predict(batch.images), predict(batch.inputs)
        success, misses = judged(y_oracle, batch.targets, threshold)
        y_initial = np.array([row["y_initial"] for row in batch.rows], np.float32)
        change = y - y_initial
        moved = np.abs(change) > threshold
        share = np.full(len(change), np.nan)
        share[moved] = (y_oracle - before)[moved] / change[moved]
        return {
            f"{name}{READING}": y_oracle,
            f"{name}{INPUT_READING}": before,
            f"{name}_mae": np.abs(y_oracle - y),
            f"{name}_error": misses,
            f"{name}_success_rate": success,
            f"{name}_direction": np.where(np.isnan(share), np.nan, share > 0),
            f"{name}_follows": np.where(np.isnan(share), np.nan, share >= _FOLLOWS),
        }

    return measure


def reactions(predict: Features, threshold: float) -> Measure:
    """How the regressor's reading reacts: cout, success_jpeg, change_jpeg, change_noise."""

    def measure(batch: Batch, y: np.ndarray) -> Mapping[str, np.ndarray]:
        jpeg = predict(_as_jpeg(batch.images))
        noise = np.random.default_rng(0).normal(0, _NOISE, batch.images.shape[1:])
        noisy = predict(np.clip(batch.images + noise, 0, 1).astype(np.float32))
        return {
            "cout": _cout(predict, batch),
            "success_jpeg": judged(jpeg, batch.targets, threshold)[0],
            "change_jpeg": np.abs(jpeg - y),
            "change_noise": np.abs(noisy - y),
        }

    return measure


def judged(
    predictions: np.ndarray, targets: Sequence[float | str], threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    """Which predictions count as a success, and their distances; NaN where the target is extreme.

    A range has no threshold: inside the distance is 0, outside that to the nearer end.
    """
    success, misses = np.full((2, len(targets)), np.nan, np.float32)
    for i, (y, target) in enumerate(zip(predictions, targets, strict=True)):
        wanted = nearest(float(y), target)
        if wanted is not None:
            misses[i] = np.abs(y - np.float32(wanted))
            success[i] = misses[i] <= np.float32(0 if isinstance(target, str) else threshold)
    return success, misses


def _attack(
    predict: Any, x: jax.Array, aim: jax.Array, within: jax.Array, steps: jax.Array
) -> jax.Array:
    """Signed steps of the size that the linearised prediction needs.

    x <- clip(x + s sign(g), 0, 1),    s = (aim - y) / sum |g|, at most 4/255

    until all are within half of the threshold, or for `steps` steps.
    """

    def goes_on(state: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        number, moving, _ = state
        return moving & (number < steps)

    def step(
        state: tuple[jax.Array, jax.Array, jax.Array],
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        number, _, x = state
        y, pull = jax.vjp(predict, x)
        (g,) = pull(jnp.ones_like(y))
        gap = aim - y
        size = gap / jnp.maximum(jnp.abs(g).sum((1, 2, 3)), 1e-12)
        size = jnp.clip(size, -_ATTACK_STEP, _ATTACK_STEP)
        size = jnp.where(jnp.abs(gap) <= within / 2, 0, size)
        moving = (jnp.abs(gap) > within / 2).any()
        return number + 1, moving, jnp.clip(x + size[:, None, None, None] * jnp.sign(g), 0, 1)

    return jax.lax.while_loop(goes_on, step, (jnp.zeros((), int), jnp.ones((), bool), x))[2]


def _cout(predict: Features, batch: Batch) -> np.ndarray:
    """Counterfactual transition (COUT) for a number: 2 mean_t p_t - 1, in [-1, 1].

    The pixels that changed most are carried over to the original first, a fiftieth of all at a
    time; p_t is the share of the prediction's change that is there after step t, within 0 and 1.
    An image whose few largest changes make the prediction has 1. NaN where the prediction did not
    change.

    Reference: Khorram and Fuxin, Cycle-consistent counterfactuals, CVPR 2022.
    """
    x, y = batch.inputs, batch.images
    order = np.argsort(np.abs(y - x).sum(-1).reshape(len(x), -1), axis=1)[:, ::-1]
    rank = np.argsort(order, axis=1).reshape(x.shape[:3])
    count = x.shape[1] * x.shape[2]
    shares = []
    for t in range(_COUT_STEPS + 1):
        carried = (rank < t * count / _COUT_STEPS)[..., None]
        shares.append(predict(np.where(carried, y, x)))
    start, end = shares[0], shares[-1]
    with np.errstate(invalid="ignore", divide="ignore"):
        progress = np.clip((np.stack(shares) - start) / (end - start), 0, 1)
    area = np.trapezoid(progress, dx=1 / _COUT_STEPS, axis=0)
    return np.where(start == end, np.nan, 2 * area - 1)


def _as_jpeg(images: np.ndarray, quality: int = 75) -> np.ndarray:
    """Images as JPEG files have them."""
    found = []
    for image in np.round(images * 255).astype(np.uint8):
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=quality)
        found.append(np.asarray(Image.open(file)) / np.float32(255))
    return np.stack(found).astype(np.float32)
