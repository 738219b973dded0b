"""Numbers and pictures of an evaluation in an experiment tracker, beside those of other runs."""

import importlib
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tensorboardX import SummaryWriter

from diffcf_jax.errors import UserError
from diffcf_jax.files import read_image
from diffcf_jax.report.cases import worst_first
from diffcf_jax.report.sheet import plot_achieved, sheet
from diffcf_jax.results.log import image_path, read_results

from ..figure import check_matplotlib, figure_bytes

Config = Mapping[str, Any]
Values = Mapping[str, float]
Pictures = Mapping[str, np.ndarray]  # name -> uint8 [H, W, 3]

_SHEETS = 8


def check_trackers(names: Sequence[str]) -> None:
    """Refuses a tracker that is unknown, or what it needs and is not installed.

    Raises:
        UserError: it is.
    """
    for name in names:
        if name not in TRACKERS:
            raise UserError(f"--log_to={name}: use {', '.join(TRACKERS)}")
        if name != "tensorboard":
            _module(name)
    if names:
        check_matplotlib()


def pictures_of(folder: Path, threshold: float, unit: str | None) -> dict[str, np.ndarray]:
    """Draws what a tracker shows of a run.

    Args:
        folder: OUT.
        threshold: of success.
        unit: of the predictions.

    Returns:
        `achieved_against_target`, where there is something to draw, and `case_1` to `case_8`: the
        sheets of the images that the report lists first, failures before others.

    Raises:
        UserError: an image is missing or broken.
    """
    rows = sorted((row for row in read_results(folder) if "error" not in row), key=worst_first)
    found = {"achieved_against_target": plot_achieved(rows, threshold, unit)}
    for i, name in enumerate(list(dict.fromkeys(row["name"] for row in rows))[:_SHEETS], 1):
        chosen = [row for row in rows if row["name"] == name]
        drawn = sheet(chosen, lambda row, key: read_image(image_path(folder, row, key)), unit)
        drawn.suptitle(name, fontsize=8, parse_math=False)
        found[f"case_{i}"] = drawn
    return {name: _pixels(figure) for name, figure in found.items() if figure is not None}


def log_to(name: str, folder: Path, summary: Config, config: Config, pictures: Pictures) -> None:
    """Writes the mean of every metric, `NAME`, and of the control, `control/NAME`, and pictures.

    Args:
        name: "tensorboard" writes into OUT/tensorboard; "wandb" and "mlflow" open a run with the
            folder's name where their own settings say, with the config's values.
        folder: OUT.
        summary: what `evaluate` returns.
        config: of the run.
        pictures: see `pictures_of`.
    """
    parts = {"": summary["metrics"], "control/": summary.get("control", {})}
    values = {
        prefix + metric: interval["mean"]
        for prefix, intervals in parts.items()
        for metric, interval in intervals.items()
        if interval["mean"] is not None
    }
    TRACKERS[name](folder, values, config, pictures)


def _tensorboard(folder: Path, values: Values, _: Config, pictures: Pictures) -> None:
    with SummaryWriter(str(folder / "tensorboard")) as board:
        for name, value in values.items():
            board.add_scalar(name, value, 0)
        for name, pixels in pictures.items():
            board.add_image(name, pixels, 0, dataformats="HWC")


def _wandb(folder: Path, values: Values, config: Config, pictures: Pictures) -> None:
    wandb, name = _module("wandb"), folder.resolve().name
    with wandb.init(project="diffcf_jax", name=name, config=dict(config)) as run:
        run.log({**values, **{key: wandb.Image(pixels) for key, pixels in pictures.items()}})


def _mlflow(folder: Path, values: Values, config: Config, pictures: Pictures) -> None:
    mlflow = _module("mlflow")
    with mlflow.start_run(run_name=folder.resolve().name):
        mlflow.log_params(dict(_flat(config)))
        mlflow.log_metrics(dict(values))
        for name, pixels in pictures.items():
            mlflow.log_image(pixels, f"{name}.png")


def _pixels(figure: Any) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(figure_bytes(figure, "png"))).convert("RGB"))


def _flat(config: Config, prefix: str = "") -> list[tuple[str, Any]]:
    """`method.tau`, ... of nested sections."""
    found = []
    for key, value in config.items():
        inner = isinstance(value, Mapping)
        found += _flat(value, f"{prefix}{key}.") if inner else [(f"{prefix}{key}", value)]
    return found


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise UserError(f"--log_to={name} needs {name}: pip install {name}") from None


TRACKERS: dict[str, Callable[[Path, Values, Config, Pictures], None]] = {
    "tensorboard": _tensorboard,
    "wandb": _wandb,
    "mlflow": _mlflow,
}
