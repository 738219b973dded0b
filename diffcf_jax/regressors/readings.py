"""What reads the images of a run besides the regressor: oracles, and outputs not explained."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from diffcf_jax.checkpoint.network import REGRESSORS, Network
from diffcf_jax.checkpoint.store import load_network
from diffcf_jax.errors import UserError
from diffcf_jax.regressors import load
from diffcf_jax.regressors.regressor import Regressor
from diffcf_jax.units import Unit, unit_of

# Images [B, H, W, 3] float32 in [0, 1] to predictions [B] in the label's unit.
Predict = Callable[[np.ndarray], np.ndarray]
Oracles = str | Sequence[Mapping[str, Any]]

_TAKEN = ("oracle", "final", "square", "background")  # by other metrics


def oracle_sections(oracles: Oracles) -> dict[str, Mapping[str, Any]]:
    """Return the oracles of a config by their names.

    Args:
        oracles: `a,b`, each what `load_regressor` reads; or sections with the keys of
            `config.oracle`, and `name` where another name is wanted than the file's. What shares
            its file's name with another is named by its whole path.

    Raises:
        UserError: two have one name, or a section says too little.
    """
    if isinstance(oracles, str):
        oracles = [{"model": part.strip()} for part in oracles.split(",") if part.strip()]
    sections = []
    for section in oracles:
        if not isinstance(section, Mapping) or not spec_of(section):
            raise UserError(
                "config.oracles must be a,b with a network directory, file or package.module:name "
                "each, or sections with model, preprocess and output."
            )
        sections.append((section.get("name") or _short_name(spec_of(section)), section))
    count = Counter([*_TAKEN, *(name for name, _ in sections)])
    found = {name if count[name] == 1 else spec_of(section): section for name, section in sections}
    if len(found) < len(sections):
        raise UserError("config.oracles has one oracle twice: give each once, or its own name.")
    return found


def spec_of(section: Mapping[str, Any]) -> str:
    """Return which regressor a section of a config names; "" for none."""
    return str(section.get("model") or section.get("checkpoint") or "")


def open_oracles(oracles: Oracles, size: int) -> dict[str, Predict]:
    """Return the oracles of a config, which have read an image of the generator's size.

    Raises:
        UserError: one is missing, broken, or does not take such images.
    """
    found = {}
    for name, section in oracle_sections(oracles).items():
        try:
            found[name] = predictor(spec_of(section), section, 2)
            found[name](np.zeros((2, size, size, 3), np.float32))
        except UserError as error:
            raise UserError(f"config.oracles, {name}: {error}") from None
    return found


def other_outputs(regressor: Any) -> dict[str, Predict]:
    """Return the outputs of a regressor that it holds or reports, by their names."""
    if not isinstance(regressor, Regressor) or not regressor.output.hold + regressor.output.report:
        return {}
    read = _in_batches(regressor.others, regressor.variables, Unit(), 2)
    columns = regressor.output.hold + regressor.output.report
    return {f"output {n}": lambda x, i=i: read(x)[:, i] for i, n in enumerate(columns)}


@dataclasses.dataclass(frozen=True)
class Reader:
    """A regressor of any kind, opened to be asked.

    Attributes:
        spec: what it was opened by.
        apply: (variables, images [B, H, W, 3] in [0, 1]) -> (y - mean) / scale [B].
        variables: its first argument.
        unit: of y.
        size: the height and width of the images that it takes; None: any that its pre-processing
            takes.
        network: the network, where it is one of this package.
    """

    spec: str
    apply: Callable[[Any, Any], jax.Array]
    variables: Any
    unit: Unit
    size: int | None = None
    network: Network | None = None

    def check_size(self, images: np.ndarray) -> None:
        """Refuse images [B, H, W, 3] of another size.

        Raises:
            UserError: they are.
        """
        size = self.size
        if size is not None and images.shape[1:] != (size, size, 3):
            height, width = images.shape[1:3]
            raise UserError(
                f"{self.spec} takes images of {size}x{size} pixels, and these have "
                f"{width}x{height}: give the regressor of this run"
            )


def open_reader(spec: str | Path, config: Mapping[str, Any] | None) -> Reader:
    """Open a regressor.

    Args:
        spec: a network directory, or any other regressor that `load_regressor` reads.
        config: may hold `unit`, `mean` and `scale`, which come before the checkpoint's, and
            `preprocess` and `output` of another regressor.

    Raises:
        UserError: the regressor is missing or broken, or none.
    """
    config = config or {}
    if load.is_external(spec):
        texts = (config.get(key) or "" for key in ("preprocess", "output"))
        regressor = load.load_regressor(spec, *texts, unit_of({}, config))
        return Reader(str(spec), regressor.apply, regressor.variables, regressor.unit)
    network = load_network(spec)
    if network.kind not in REGRESSORS:
        raise UserError(f'{spec} holds a "{network.kind}", not a regressor: give another one')
    return Reader(
        str(spec), network.module.apply, network.variables, unit_of(network.description, config),
        network.description["image_size"], network,
    )  # fmt: skip


def predictor(spec: str | Path, config: Mapping[str, Any] | None, batch_size: int) -> Predict:
    """Load a regressor as a function that is compiled once, for at most `batch_size` images.

    Its predictions are in the label's unit: mean + scale * network(images).

    Args:
        spec: see `open_reader`.
        config: see `open_reader`.
        batch_size: of what is compiled.

    Raises:
        UserError: see `open_reader`; when called, images of another size than the network's.
    """
    reader = open_reader(spec, config)
    predict_batch = _in_batches(reader.apply, reader.variables, reader.unit, batch_size)

    def predict(images: np.ndarray) -> np.ndarray:
        reader.check_size(images)
        return predict_batch(images)

    return predict


def read_both(
    readings: Mapping[str, Predict], before: np.ndarray, after: np.ndarray
) -> dict[str, dict[str, float]]:
    """Return what each reading says of an input and its counterfactual, both uint8 [H, W, 3]."""
    pair = np.stack([before, after]).astype(np.float32) / 255
    values = {name: predict(pair) for name, predict in readings.items()}
    return {name: {"before": float(y[0]), "after": float(y[1])} for name, y in values.items()}


def _in_batches(
    apply: Callable[[Any, Any], jax.Array], variables: Any, unit: Unit, batch_size: int
) -> Predict:
    """A function of at most `batch_size` images, compiled once for images of one size."""
    apply = jax.jit(apply)

    def predict(images: np.ndarray) -> np.ndarray:
        padded = np.zeros([batch_size, *images.shape[1:]], np.float32)
        padded[: len(images)] = images
        return unit.denormalise(np.asarray(apply(variables, padded))[: len(images)])

    return predict


def _short_name(spec: str) -> str:
    """`age-v1` of a file, `oracle` of runs/oracle/best, `name` of package.module:name."""
    path = Path(spec)
    if ":" in spec and load.is_external(spec):
        return spec.rpartition(":")[2]
    if load.is_external(spec):
        return path.stem
    return path.parent.name if path.name in ("best", "network") and path.parent.name else path.name
