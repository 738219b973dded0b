"""What a Diff-AE keeps of an image, what its code z_sem says, and how codes are distributed."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tqdm

from diffcf_jax.diffusion import sampler
from diffcf_jax.diffusion.schedule import Diffusion, respace
from diffcf_jax.errors import UserError
from diffcf_jax.sampling import render

from ..page import Finding, Plot, Table
from .subject import Subject

Array = jax.Array

INVERSION_STEPS = (10, 20, 50, 100, 250)
DECODE_STEPS = (2, 5, 10, 20, 50, 100)


class Autoencoder:
    """A Diff-AE with its variables; each number of steps is one compiled program.

    Args:
        subject: whose generator is a Diff-AE.
    """

    def __init__(self, subject: Subject):
        network = subject.generator
        self._variables = network.variables
        self._fixed = (network.module, subject.diffusion)
        self._programs: dict[Any, Any] = {}

    def encode(self, images: Array) -> Array:
        """z_sem [B, D] of images [B, H, W, 3] in [0, 1]."""
        return self._program(_encode)(self._variables, images)

    def invert(self, images: Array, z_sem: Array, steps: int) -> Array:
        """x_T of images in [0, 1]."""
        return self._program(_invert, steps)(self._variables, images, z_sem)

    def decode(self, z_sem: Array, x_T: Array, steps: int) -> np.ndarray:
        """Images in [0, 1]."""
        found = self._program(_decode, steps)(self._variables, z_sem, x_T)
        return np.clip(np.asarray(found), 0, 1)

    def _program(self, function: Any, *steps: int) -> Any:
        key = (function, *steps)
        if key not in self._programs:
            self._programs[key] = jax.jit(functools.partial(function, *self._fixed, *steps))
        return self._programs[key]


def _encode(module: Any, diffusion: Diffusion, variables: Any, images: Array) -> Array:
    return module.apply(variables, 2 * images - 1, method="encode")


def _invert(
    module: Any, diffusion: Diffusion, steps: int, variables: Any, images: Array, z_sem: Array
) -> Array:
    model = sampler.bind(module.apply, variables, z_sem, method="predict")
    return sampler.invert(respace(diffusion, f"ddim{steps}"), model, 2 * images - 1)


def _decode(
    module: Any, diffusion: Diffusion, steps: int, variables: Any, z_sem: Array, x_T: Array
) -> Array:
    return render(module, diffusion, variables, z_sem, x_T, steps)


def check_steps(subject: Subject, autoencoder: Autoencoder) -> Finding:
    """Measures the reconstruction by the number of inversion and of decoding steps.

        error  mean |x^ - x| over all pixels, full range 1
        gap    mean |r(x^) - r(x)|, in the label's unit

    "none" inverts nothing: x_T is drawn at random, so that only z_sem knows the image.
    """
    images = jnp.asarray(subject.images)
    z_sem = autoencoder.encode(images)
    y = subject.read(images)
    inversions = _possible(subject, INVERSION_STEPS, "inversion_steps")
    decodings = _possible(subject, DECODE_STEPS, "decode_steps")
    starts = {"none": jax.random.normal(jax.random.key(subject.seed), images.shape)}
    rows, pictures = [], {"x": subject.images}
    configured = subject.method.get("inversion_steps", 250)
    for steps in tqdm.tqdm(["none", *inversions], desc="inversion steps", dynamic_ncols=True):
        if steps not in starts:
            starts[steps] = autoencoder.invert(images, z_sem, steps)
        for count in decodings:
            decoded = autoencoder.decode(z_sem, starts[steps], count)
            rows.append(
                {
                    "inversion": steps,
                    "decoding": count,
                    "error": float(np.abs(decoded - subject.images).mean()),
                    "gap": float(np.abs(subject.read(decoded) - y).mean()),
                }
            )
            if steps == configured:
                pictures[f"T = {count}"] = decoded
            elif steps == "none" and count == decodings[-1]:
                pictures["random x_T"] = decoded
    pictures["random x_T"] = pictures.pop("random x_T")  # to the end
    found = {(row["inversion"], row["decoding"]): row for row in rows}
    best = min((row for row in rows if row["inversion"] != "none"), key=lambda row: row["error"])
    enough = next(
        count for count in decodings
        if found[best["inversion"], count]["error"] <= 1.1 * best["error"]
    )  # fmt: skip
    here = found[configured, subject.method.get("decode_steps", 10)]
    unit, in_unit = (
        (f" {subject.unit.name}", f" ({subject.unit.name})") if subject.unit.name else ("", "")
    )
    text = (
        f"Inversion with {here['inversion']} and decoding with T = {here['decoding']} steps, as in "
        f"the config, miss the pixels by {here['error']:.4f} and the prediction by "
        f"{here['gap']:.3g}{unit} on average. The least error, {best['error']:.4f}, is that of "
        f"{best['inversion']} and {best['decoding']} steps, and T = {enough} comes within a tenth "
        "of it."
    )

    def curves(name: str) -> dict[str, list[tuple[float, float]]]:
        return {
            label: [(n, found[steps, n][name]) for n in decodings]
            for label, steps in [
                ("random x_T", "none"),
                *((f"{steps} inversion steps", steps) for steps in inversions),
            ]
        }

    return Finding(
        name="reconstruction",
        title="Reconstruction, by the steps of inversion and decoding",
        text=text,
        table=Table.of(rows),
        plots=[
            Plot("Error of the pixels", curves("error"), "decoding steps T", log=True),
            Plot(f"Gap of the prediction{in_unit}", curves("gap"), "decoding steps T", log=True),
        ],
        pictures=pictures,
    )


def check_swap(subject: Subject, autoencoder: Autoencoder) -> Finding:
    """Decodes z_sem of one image with x_T of another and reads whose label the regressor sees.

    With y_i the prediction for the reconstruction of image i and y_ij that for (x_T of i, z_sem
    of j), the share of the label that z_sem carries is the least-squares slope of y_ij - y_i on
    y_j - y_i: 1 if the prediction follows z_sem, 0 if it stays with x_T. Partners are half the
    data apart in the order of their predictions.
    """
    images = jnp.asarray(subject.images)
    z_sem = autoencoder.encode(images)
    x_T = autoencoder.invert(images, z_sem, subject.method.get("inversion_steps", 250))
    steps = subject.method.get("decode_steps", 10)
    own = autoencoder.decode(z_sem, x_T, steps)
    y = subject.read(own)
    order = np.argsort(y, kind="stable")
    partner = np.empty(len(y), int)
    partner[order] = np.roll(order, len(y) // 2)
    swapped = autoencoder.decode(z_sem[partner], x_T, steps)
    y_swapped = subject.read(swapped)
    step, move = y[partner] - y, y_swapped - y
    share = float(step @ move / max(float(step @ step), 1e-12))
    rows = [
        {
            "x_T of": subject.names[i],
            "z_sem of": subject.names[partner[i]],
            "y of x_T's": float(y[i]),
            "y of z_sem's": float(y[partner[i]]),
            "y": float(y_swapped[i]),
        }
        for i in range(len(y))
    ]
    text = (
        f"z_sem carries {share:.0%} of the label and x_T the rest: that much of the difference "
        "between two images' predictions moves with z_sem. Diff-AE-RE can only change what z_sem "
        "carries."
    )
    points = [(float(a), float(b)) for a, b in zip(step, move, strict=True)]
    return Finding(
        name="swap",
        title="z_sem of one image with x_T of another",
        text=text,
        table=Table.of(rows, values={"share": share}),
        plots=[
            Plot(
                "Change of the prediction",
                {"a pair": points},
                "prediction for z_sem's image - prediction for x_T's image",
                kind="points",
                diagonal=True,
            )
        ],
        pictures={
            "x_T of": own,
            "z_sem of": own[partner],
            "together": swapped,
        },
    )


def check_codes(subject: Subject, autoencoder: Autoencoder) -> Finding:
    """Statistics of z_sem and of x_T.

    std              mean and least standard deviation of a channel
    dead             channels whose standard deviation is below 1% of the median's
    dimensions       (sum l)^2 / sum l^2 of the covariance's eigenvalues l
    distance         mean Euclidean distance of two codes
    linear_r2        R^2 of the best linear prediction of r(x) from z_sem, left one out
    x_T mean, std    of the inverted x_T's values; 0 and 1 for what the model was trained on
    """
    images = subject.more_images
    batches = np.array_split(np.arange(len(images)), -(-len(images) // len(subject.images)))
    size = max(map(len, batches))

    def padded(rows: np.ndarray) -> np.ndarray:  # of one shape, to be compiled once
        return images[np.resize(rows, size)]

    z = np.concatenate([np.asarray(autoencoder.encode(padded(b)))[: len(b)] for b in batches])
    y = np.concatenate([subject.read(padded(b))[: len(b)] for b in batches])
    z = z.astype(np.float64)
    std = z.std(0)
    centred = z - z.mean(0)
    eigenvalues = np.linalg.svd(centred, compute_uv=False) ** 2 / max(len(z) - 1, 1)
    dimensions = float(eigenvalues.sum() ** 2 / (eigenvalues**2).sum())
    n = len(z)
    distance = float(np.sqrt(2 * n / (n - 1) * (centred**2).sum(1).mean()))
    some = jnp.asarray(subject.images)
    steps = subject.method.get("inversion_steps", 250)
    x_T = np.asarray(autoencoder.invert(some, autoencoder.encode(some), steps))
    values = {
        "images": n,
        "channels": z.shape[1],
        "std_mean": float(std.mean()),
        "std_least": float(std.min()),
        "dead": int((std < 0.01 * np.median(std)).sum()),
        "dimensions": dimensions,
        "distance": distance,
        "linear_r2": linear_r2(centred, y),
        "x_T_mean": float(x_T.mean()),
        "x_T_std": float(x_T.std()),
    }
    text = (
        f"The codes of {n} images fill about {dimensions:.1f} of {z.shape[1]} dimensions; "
        f"{values['dead']} channels are dead. A linear function of z_sem explains "
        f"{values['linear_r2']:.0%} of the variance of the predictions. Two codes are "
        f"{distance:.3g} apart on average, which is what a distance in latent space is to be "
        f"measured by. x_T has the mean {values['x_T_mean']:.3f} and the standard deviation "
        f"{values['x_T_std']:.3f}."
    )
    share = np.cumsum(eigenvalues) / eigenvalues.sum()
    spectrum = [(i + 1, float(s)) for i, s in enumerate(share)]
    return Finding(
        name="codes",
        title="How codes are distributed",
        text=text,
        table=Table([], [], values),
        plots=[
            Plot("Share of the variance", {"explained": spectrum}, "principal components", log=True)
        ],
        pictures={},
    )


def linear_r2(z: np.ndarray, y: np.ndarray) -> float:
    """R^2 of ridge regression of y [n] on centred z [n, D], left one out, with the best ridge.

    In its dual form with the kernel K = z z^T the prediction is H y, H = K (K + a)^-1, and the
    left-out residuals are (y - H y) / (1 - 1/n - diag H).
    """
    residual_of_mean = (y - y.mean()) * len(y) / (len(y) - 1)
    if not np.any(residual_of_mean):
        raise UserError("The regressor predicts the same for every image; there is no label.")
    eigenvalues, vectors = np.linalg.eigh(z @ z.T)
    eigenvalues = eigenvalues.clip(0)
    best = 0.0
    for ridge in np.geomspace(1e-6, 1e2, 17) * eigenvalues.mean():
        smoother = (vectors * (eigenvalues / (eigenvalues + ridge))) @ vectors.T
        left_out = 1 - 1 / len(y) - np.diag(smoother)
        if (left_out <= 1e-9).any():
            continue
        residual = (y - y.mean() - smoother @ (y - y.mean())) / left_out
        best = max(best, 1 - float(np.sum(residual**2) / np.sum(residual_of_mean**2)))
    return best


def _possible(subject: Subject, steps: tuple[int, ...], key: str) -> list[int]:
    """Those numbers of steps, and the config's, that an integer stride takes."""
    if key not in subject.method:
        raise UserError(f"config.method has no {key}, although the generator is a Diff-AE.")
    total = subject.diffusion.num_timesteps
    fitting = [n for n in steps if len(range(0, total, -(-total // n))) == n]
    return sorted({*fitting, subject.method[key]})
