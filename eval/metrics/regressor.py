"""What the explained regressor and the oracles say of the saved images."""

import functools
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from diffcf_jax.regressors.readings import Reader, open_reader
from diffcf_jax.target import Range, inside, nearest
from diffcf_jax.training.frechet import features

from .batch import BATCH_SIZE, Batch, Features, Measure, in_batches, remembering

# What ends the name of what an oracle says of x' and of x, in the label's unit
READING = "_reading"
INPUT_READING = f"_input{READING}"

_COUT_STEPS = 50
_NOISE = 2 / 255
_FOLLOWS = 0.5  # of the explained regressor's change


class Judge:
    """A regressor that reads any number of images, compiled once per image size.

    Attributes:
        reader: the regressor as it was opened.
        features: what its last layer sees; None where that is not known.
    """

    features: Features | None = None

    def __init__(self, reader: Reader):
        """Takes the regressor as it was opened."""
        self.reader = reader
        self._read = in_batches(reader.apply, reader.variables)
        if network := reader.network:
            look = functools.partial(features, network.module)
            self.features = remembering(in_batches(look, network.variables))

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Returns predictions [B] in the label's unit for images [B, H, W, 3] in [0, 1].

        Raises:
            UserError: the images are of another size than the network's.
        """
        self.reader.check_size(images)
        return self.reader.unit.denormalise(self._read(images))


def load_judge(spec: str | Path, config: Mapping[str, Any] | None = None) -> Judge:
    """Loads a regressor, see `open_reader`."""
    return Judge(open_reader(spec, config))


def searched(labels: Range | None) -> Measure:
    """How long the search took, and whether labels like its target were seen: iterations, support.

    Args:
        labels: the range of the training labels; None, where it is not known, leaves support out.
    """

    def measure(batch: Batch, _: np.ndarray) -> Mapping[str, np.ndarray]:
        found = {"iterations": np.array([row["iterations"] for row in batch.rows])}
        if labels is not None:
            found["support"] = np.array([inside(target, labels) for target in batch.targets])
        return found

    return measure


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
            "cout": _cout(predict, batch, y),
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


def _cout(predict: Features, batch: Batch, end: np.ndarray) -> np.ndarray:
    """Counterfactual transition (COUT) for a number: 2 mean_t p_t - 1, in [-1, 1].

    The pixels that changed most are carried over to the original first, a fiftieth of all at a
    time; p_t is the share of the prediction's change that is there after step t, within 0 and 1.
    An image whose few largest changes make the prediction has 1. NaN where the prediction did not
    change. Once all changes are there, further steps need no prediction.

    Args:
        predict: the explained regressor.
        batch: the results.
        end: its predictions for the counterfactuals [B].

    Reference: Khorram and Fuxin, Cycle-consistent counterfactuals, CVPR 2022.
    """
    x, y = batch.inputs, batch.images
    change = np.abs(y - x).sum(-1)
    rank = np.argsort(np.argsort(change.reshape(len(x), -1))[:, ::-1]).reshape(change.shape)
    carried = np.arange(_COUT_STEPS + 1) * rank[0].size / _COUT_STEPS  # pixels after each step
    start, shares = predict(x), np.tile(end, (_COUT_STEPS + 1, 1))
    shares[0] = start
    steps, images = np.nonzero(carried[:, None] < np.count_nonzero(change, axis=(1, 2)))
    steps, images = steps[steps > 0], images[steps > 0]
    for first in range(0, len(steps), BATCH_SIZE):
        t, i = steps[first : first + BATCH_SIZE], images[first : first + BATCH_SIZE]
        there = rank[i] < carried[t][:, None, None]
        shares[t, i] = predict(np.where(there[..., None], y[i], x[i]))
    with np.errstate(invalid="ignore", divide="ignore"):
        progress = np.clip((shares - start) / (end - start), 0, 1)
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
