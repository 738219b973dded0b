"""The figures of an evaluation in an experiment tracker, beside those of other runs."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter

from diffcf_jax.errors import UserError

Config = Mapping[str, Any]
Values = Mapping[str, float]


def check_trackers(names: Sequence[str]) -> None:
    """Refuses a tracker that is unknown or not installed.

    Raises:
        UserError: it is.
    """
    for name in names:
        if name not in TRACKERS:
            raise UserError(f"--log_to={name}: use {', '.join(TRACKERS)}")
        if name != "tensorboard":
            _module(name)


def log_to(name: str, folder: Path, summary: Config, config: Config) -> None:
    """Writes the mean of every metric, `NAME`, and of the control, `control/NAME`.

    Args:
        name: "tensorboard" writes into OUT/tensorboard; "wandb" and "mlflow" open a run with the
            folder's name where their own settings say, with the config's values.
        folder: OUT.
        summary: what `evaluate` returns.
        config: of the run.
    """
    parts = {"": summary["metrics"], "control/": summary.get("control", {})}
    values = {
        prefix + metric: interval["mean"]
        for prefix, intervals in parts.items()
        for metric, interval in intervals.items()
        if interval["mean"] is not None
    }
    TRACKERS[name](folder, values, config)


def _tensorboard(folder: Path, values: Values, _: Config) -> None:
    with SummaryWriter(str(folder / "tensorboard")) as board:
        for name, value in values.items():
            board.add_scalar(name, value, 0)


def _wandb(folder: Path, values: Values, config: Config) -> None:
    name = folder.resolve().name
    with _module("wandb").init(project="diffcf_jax", name=name, config=dict(config)) as run:
        run.log(dict(values))


def _mlflow(folder: Path, values: Values, config: Config) -> None:
    mlflow = _module("mlflow")
    with mlflow.start_run(run_name=folder.resolve().name):
        mlflow.log_params(dict(_flat(config)))
        mlflow.log_metrics(dict(values))


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


TRACKERS: dict[str, Callable[[Path, Values, Config], None]] = {
    "tensorboard": _tensorboard,
    "wandb": _wandb,
    "mlflow": _mlflow,
}
