"""What an audit looks at: the results of a run, as images and as codes, and what reads them."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffcf_jax.checkpoint.store import load_network
from diffcf_jax.counterfactual.diffae_re import DiffAERE
from diffcf_jax.errors import UserError
from diffcf_jax.files import read_image
from diffcf_jax.inputs import check_seed, parse_method
from diffcf_jax.regressors.readings import (
    Oracles,
    Predict,
    open_reader,
    oracle_sections,
    predictor,
    spec_of,
)
from diffcf_jax.results.log import image_path, order_of, read_codes, read_results
from diffcf_jax.shipped import command
from diffcf_jax.target import ends
from diffcf_jax.workdir import read_config

from ..metrics.batch import Features
from ..metrics.weights import load_networks
from .directions import Space, split
from .latent import BATCH, Latent

LEAST = 4  # images

REGRESSOR = "regressor"
_IDENTITIES = ("identity", "identity_dlib")


@dataclasses.dataclass(frozen=True, eq=False)
class Subject:
    """What is audited.

    Attributes:
        names: of the images.
        images: the inputs, float32 [N, H, W, 3] in [0, 1].
        codes: their standardised codes s [N, D].
        x_T: their stochastic codes.
        half: of each image, see `split`.
        image_of: the image of each counterfactual that reached its target, int [M].
        changes: what each of these changed in s [M, D].
        before: the prediction for the reconstruction [M].
        after: the prediction for the counterfactual [M].
        space: how codes are standardised.
        latent: the generator.
        readers: what reads a number in images [B, H, W, 3], B at most BATCH: the regressor first,
            then the oracles, all in the label's unit.
        identity: features of a person; None: there is no such network.
        unit: of the label.
        threshold: of success.
        seed: of all draws.
    """

    names: Sequence[str]
    images: np.ndarray
    codes: np.ndarray
    x_T: np.ndarray
    half: np.ndarray
    image_of: np.ndarray
    changes: np.ndarray
    before: np.ndarray
    after: np.ndarray
    space: Space
    latent: Latent
    readers: Mapping[str, Predict]
    identity: Features | None
    unit: str | None
    threshold: float
    seed: int

    @property
    def oracles(self) -> list[str]:
        """Names of the oracles."""
        return [name for name in self.readers if name != REGRESSOR]

    def render(self, change: np.ndarray, which: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Images whose codes s have changed by [n, D]; `which` are the images [n], default all."""
        s = self.codes[which] + change
        return self.latent.render(self.space.mean + self.space.change(s), self.x_T[which])

    def read(self, images: np.ndarray, name: str = REGRESSOR) -> np.ndarray:
        """Predictions [n] for any number of images."""
        parts = range(0, len(images), BATCH)
        return np.concatenate([self.readers[name](images[i : i + BATCH]) for i in parts])

    def encode(self, images: np.ndarray) -> np.ndarray:
        """Standardised codes [n, D] of images."""
        return self.space.standardise(self.latent.encode(images))

    def gradients(self) -> np.ndarray:
        """The gradient of the prediction by s, for each image [N, D]."""
        z = self.space.mean + self.space.change(self.codes)
        return self.space.change(self.latent.gradient(z, self.x_T))

    def distance(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """How far images are from others [n]: 1 - cosine of the identities, or mean |a - b|."""
        if self.identity is None:
            return np.abs(a - b).mean((1, 2, 3), dtype=np.float64)
        p, q = self.identity(a), self.identity(b)
        norms = np.linalg.norm(p, axis=1) * np.linalg.norm(q, axis=1)
        return 1 - (p * q).sum(1) / np.maximum(norms, 1e-8)


def _identity(weights: str | Path) -> Features:
    features = load_networks(weights).features
    for name in _IDENTITIES:
        if name in features:
            return features[name]
    raise UserError(
        f"{weights} holds no network {' or '.join(_IDENTITIES)}: leave --weights out, or convert "
        "one"
    )


def image_names(folder: Path, limit: int | None = None) -> list[str]:
    """Names of the images with a result, in their order.

    Args:
        folder: the results.
        limit: the first of them only.

    Raises:
        UserError: there are no results, or too few images.
    """
    rows = sorted((row for row in read_results(folder) if "error" not in row), key=order_of)
    names = list(dict.fromkeys(row["name"] for row in rows))[:limit]
    if len(names) < LEAST:
        raise UserError(f"{folder} has {len(names)} images; an audit needs {LEAST} at least")
    return names


def open_subject(
    folder: Path,
    names: Sequence[str],
    *,
    generator: str | Path | None = None,
    regressor: str | Path | None = None,
    oracle: str | Path | None = None,
    oracles: Oracles | None = None,
    weights: str | Path | None = None,
) -> Subject:
    """Open the results of a finished run of Diff-AE-RE or the hybrid.

    Args:
        folder: the results.
        names: of the images to look at, of `image_names`.
        generator: network directory; None: the one in the run's config, as for the others.
        regressor: see `evaluate`.
        oracle: see `evaluate`.
        oracles: see `evaluate`.
        weights: a folder with the network `identity`, see `evaluate`.

    Raises:
        UserError: whatever is wrong with the folder, its config or a network.
    """
    config = read_config(folder, f"run {command('explain')} again with this folder as --workdir")
    rows = [row for row in sorted(read_results(folder), key=order_of) if "error" not in row]
    if config is None or not isinstance(config.get("method"), Mapping):
        raise UserError(f"{folder} has no config.json of a run: give the --workdir of a run")
    method = parse_method(config["method"])
    if method.generator_kind != "diffae":
        raise UserError(
            f"{folder} holds results of {method.name}, which changes pixels and has no code to "
            "move in: give results of diffae-re or hybrid"
        )
    seed = config.get("seed", 0)
    check_seed(seed)
    place = {name: i for i, name in enumerate(names)}
    used = [row for row in rows if row["name"] in place and _reached(row)]
    if not used:
        raise UserError(
            f"{folder} holds no counterfactual that reached its target: there is no change to audit"
        )
    judges = _judges(config, regressor, oracle, oracles)
    source = _section(config, "generator", generator, "checkpoint").get("checkpoint")
    for role, known in (("generator", source), (REGRESSOR, REGRESSOR in judges)):
        if not known:
            raise UserError(f"the config of {folder} names no {role}.checkpoint: give --{role}")
    network = load_network(source)
    reader = open_reader(spec_of(judges[REGRESSOR]), judges[REGRESSOR])
    readers = {name: predictor(spec_of(one), one, BATCH) for name, one in judges.items()}
    identity = _identity(weights) if weights else None
    steps = {key: getattr(method, key) for key in ("inversion_steps", "decode_steps", "precision")}
    latent = Latent(network, reader, DiffAERE(**steps))
    size = network.description["image_size"]
    first = {row["name"]: row for row in reversed(rows)}
    images = _read(folder, [first[name] for name in names], "input", size)
    z = latent.encode(images)
    if not np.isfinite(z).all():
        raise UserError(f"the codes of {source} are not finite: check the network")
    x_T = latent.invert(images, z)
    space = Space.of(z)
    start, changes = _changes(folder, used, method.name, latent, size)
    before, after = (
        np.array([row[key] for row in used], np.float64) for key in (f"y_{_Y[start]}", "y_final")
    )
    return Subject(
        names=names,
        images=images,
        codes=space.standardise(z),
        x_T=x_T,
        half=split(names),
        image_of=np.array([place[row["name"]] for row in used]),
        changes=space.standardise(space.mean + changes),
        before=before,
        after=after,
        space=space,
        latent=latent,
        readers=readers,
        identity=identity,
        unit=reader.unit.name,
        threshold=method.threshold,
        seed=seed,
    )


def _changes(
    folder: Path, rows: Sequence[Mapping[str, Any]], method: str, latent: Latent, size: int
) -> tuple[str, np.ndarray]:
    """From which image counterfactuals started, and by how much their codes have changed [M, D].

    The hybrid's codes also change what lies outside of its regions, which nobody sees: its images
    are encoded.
    """
    if method != "hybrid" and all("codes" in row for row in rows):
        return "reconstruction", np.diff([read_codes(folder, row) for row in rows], axis=1)[:, 0]
    # The search starts from the reconstruction, whose code is not quite that of the input.
    start = "input" if method == "hybrid" else "reconstruction"
    before, after = (latent.encode(_read(folder, rows, key, size)) for key in (start, "cf"))
    return start, after - before


_Y = {"input": "initial", "reconstruction": "reconstruction"}


def _reached(row: Mapping[str, Any]) -> bool:
    """Whether a result counts: a success, or one that goes as far as it can, with its numbers."""
    known = None not in (row["y_initial"], row["y_reconstruction"], row["y_final"])
    return known and (row["success"] or not ends(row["target"]))


def _judges(
    config: Mapping[str, Any],
    regressor: str | Path | None,
    oracle: str | Path | None,
    oracles: Oracles | None,
) -> dict[str, Mapping[str, Any]]:
    """The sections of the regressor and the oracles, of the config or as given."""
    found = {REGRESSOR: _section(config, REGRESSOR, regressor, "model")}
    found["oracle"] = _section(config, "oracle", oracle, "model")
    more = oracle_sections(config.get("oracles") or "" if oracles is None else oracles)
    found |= {spec_of(one) if name in found else name: one for name, one in more.items()}
    return {name: one for name, one in found.items() if spec_of(one)}


def _section(
    config: Mapping[str, Any], role: str, given: str | Path | None, key: str
) -> Mapping[str, Any]:
    """A section of the config, in which a given network takes the place of the one named there."""
    found = config.get(role)
    found = found if isinstance(found, Mapping) else {}
    return {**found, key: str(given)} if given else found


def _read(folder: Path, rows: Sequence[Mapping[str, Any]], key: str, size: int) -> np.ndarray:
    """Saved images, float32 [n, size, size, 3] in [0, 1]."""
    found = []
    for row in rows:
        image = read_image(image_path(folder, row, key))
        if image.shape != (size, size, 3):
            raise UserError(
                f"{folder / row[key]} is not an RGB image of {size} pixels, which the generator "
                "needs: give the generator of this run"
            )
        found.append(image)
    return np.stack(found).astype(np.float32) / 255
