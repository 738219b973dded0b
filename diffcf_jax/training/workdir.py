"""The folder of a training: which config it belongs to, its checkpoints and its networks."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax
import jax
import jax.numpy as jnp

from diffcf_jax import parallel
from diffcf_jax.checkpoint import store
from diffcf_jax.errors import UserError
from diffcf_jax.training.state import TrainState

# What may differ between two runs of one training: how long, how it is watched, how it is carried
# out. Everything else makes it another training.
MAY_CHANGE = (
    "steps", "log_every", "evaluate_every", "save_every", "workers", "accumulate", "evaluation",
)  # fmt: skip


class Workdir:
    """Checkpoints to resume from, the last network, and the best one on held-out images.

    `checkpoints/` keeps the newest two training states, `network/` the moving average of the last
    one, `best/` the moving average that did best in an evaluation.

    Args:
        path: the folder.
        config: of the training.

    Raises:
        UserError: the folder holds a training of another config.
    """

    def __init__(self, path: Path, config: Mapping[str, Any]):
        self.path = path
        self.best: dict[str, Any] | None = None
        self._config = json.loads(json.dumps(config))
        file = path / "config.json"
        networks = [path / "network", path / "best"]
        states = [entry for entry in path.glob("checkpoints/*") if entry.name.isdigit()]
        if not states and not any(network.exists() for network in networks):
            return  # nothing was saved yet, so that another config may take the place
        if not file.is_file():
            raise UserError(
                f"{path} holds a network, but no config.json tells what training it belongs to; "
                "use another --workdir."
            )
        _check_same(path, _read(file), self._config)
        if (path / "best" / "network.json").is_file():
            training = _read(path / "best" / "network.json")["training"]
            self.best = {"step": training["step"], "metrics": training["metrics"]}

    def begin(self, state: TrainState) -> TrainState:
        """Makes the folder.

        Returns:
            The newest saved state in the sharding of `state`, or `state` if there is none.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        if parallel.process_index() == 0:
            partial = self.path / "config.json.partial"
            partial.write_text(json.dumps(self._config, indent=2) + "\n")
            os.replace(partial, self.path / "config.json")
        self._checkpoints = store.training_checkpoints(self.path / "checkpoints")
        return store.restore_state(self._checkpoints, state)

    @property
    def last_good(self) -> str:
        """The newest checkpoint, in words."""
        self._checkpoints.wait_until_finished()
        step = self._checkpoints.latest_step()
        if step is None:
            return "no checkpoint was saved before"
        return f"the last good checkpoint is {self.path / 'checkpoints' / str(step)}"

    def save(self, state: TrainState, network: Mapping[str, Any], metrics: Mapping[str, float]):
        """Saves the state to resume from, in the background, and the network as it is now.

        Raises:
            UserError: a parameter is not finite; nothing is written.
        """
        step = int(state.step)
        if not all_finite(state.variables):
            raise UserError(
                f"The network's parameters are no longer finite after step {step}; "
                f"{self.last_good}. Try a lower config.optimizer.learning_rate."
            )
        store.save_state(self._checkpoints, step, state)
        self.save_network(state, network, metrics)

    def save_network(
        self, state: TrainState, network: Mapping[str, Any], metrics: Mapping[str, float]
    ) -> None:
        """Saves the network as it is now."""
        self._write("network", int(state.step), state.ema, network, metrics)

    def offer(
        self, state: TrainState, network: Mapping[str, Any], metrics: Mapping[str, float], name: str
    ) -> None:
        """Saves the network to `best/` if its metric of this name is the lowest so far."""
        if self.best is not None:
            before = self.best["metrics"][name]
            if not metrics[name] < before and math.isfinite(before):
                return
        self.best = {"step": int(state.step), "metrics": dict(metrics)}
        self._write("best", self.best["step"], state.ema, network, metrics)

    def close(self) -> None:
        """Waits for the saves in the background."""
        self._checkpoints.close()

    def _write(
        self, name: str, step: int, variables: Any, network: Mapping[str, Any], metrics: Any
    ) -> None:
        made = {key: value for key, value in self._config.items() if key != "network"}
        made = {**made, "step": step, "metrics": dict(metrics)}
        store.save_network(self.path / name, {**network, "training": made}, variables)


@jax.jit
def all_finite(tree: Any) -> jax.Array:
    """Whether every number of a tree is finite."""
    return jnp.stack([jnp.isfinite(x).all() for x in jax.tree.leaves(tree)]).all()


def _read(file: Path) -> dict[str, Any]:
    try:
        return json.loads(file.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{file} is not valid JSON ({error}); use another --workdir.") from None


def _check_same(path: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    before, now = (
        flax.traverse_util.flatten_dict(config, sep=".", keep_empty_nodes=True)
        for config in (before, now)
    )
    differing = [
        f"{key} ({before.get(key)} there, {now.get(key)} here)"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key) and key.split(".")[0] not in MAY_CHANGE
    ]
    if differing:
        raise UserError(
            f"{path} holds a training of another config: {'; '.join(differing)}. "
            "Use another --workdir, or the config that it was begun with."
        )
