"""The folder of a training: which config it belongs to, its checkpoints and its networks."""

import contextlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from clu.parameter_overview import get_parameter_overview

from diffcf_jax import parallel
from diffcf_jax.checkpoint import store
from diffcf_jax.errors import UserError
from diffcf_jax.files import write_file
from diffcf_jax.jsonfile import read_json
from diffcf_jax.results.log import RESULTS
from diffcf_jax.training.config import TrainConfig
from diffcf_jax.training.progress import last_evaluation
from diffcf_jax.training.state import TrainState
from diffcf_jax.workdir import differences, read_config, write_config

# What may differ between two runs of one training: how long, how it is watched, how it is carried
# out. Everything else makes it another training.
MAY_CHANGE = (
    "steps", "log_every", "evaluate_every", "save_every", "workers", "accumulate", "evaluation",
)  # fmt: skip


class Workdir:
    """Checkpoints to resume from, the last network, and the best one on held-out images.

    `checkpoints/` keeps the newest two training states, `network/` the moving average of the last
    one, `best/` the moving average that did best in an evaluation.

    Attributes:
        path: the folder.
        resumes: whether it holds a training state.
        best: `step` and `metrics` of the best evaluation; None before the first.
        last: the same of the last one; step 0 before the first.

    Args:
        path: the folder.
        config: of the training.

    Raises:
        UserError: the folder holds a training of another config, or something else.
    """

    def __init__(self, path: Path, config: TrainConfig):
        self.path = path
        self.best: dict[str, Any] | None = None
        self.last: dict[str, Any] = {"step": 0, "metrics": {}}
        self._config = config.to_dict()
        self._contents: dict[str, str] = {}
        before = read_config(path)
        if (before is not None and "network" not in before) or (path / RESULTS).exists():
            raise UserError(
                f"{path} holds results, but not those of a training; use another --workdir."
            )
        networks = [path / "network", path / "best"]
        self.resumes = any(entry.name.isdigit() for entry in path.glob("checkpoints/*"))
        if not self.resumes and not any(network.exists() for network in networks):
            return  # nothing was saved yet, so that another config may take the place
        if before is None:
            raise UserError(
                f"{path} holds a network, but no config.json says which training it belongs to; "
                "use another --workdir."
            )
        contents = before.pop("contents", None)  # earlier versions did not write them
        self._contents = contents if isinstance(contents, dict) else {}
        with contextlib.suppress(UserError):  # its keys are those of another version
            before = TrainConfig.from_dict(before).to_dict()
        if differing := differences(before, self._config, MAY_CHANGE):
            raise UserError(
                f"{path} holds a training of another config: {differing}. "
                "Use another --workdir, or the config that it was begun with."
            )

    def begin(self, state: TrainState, contents: Mapping[str, str]) -> TrainState:
        """Makes the folder.

        Args:
            state: to start from.
            contents: what the config's keys lead to, see `Task.contents`.

        Returns:
            The newest saved state in the sharding of `state`, or `state` if there is none.

        Raises:
            UserError: the contents are others than those that the training was begun with, the
                saved states do not serve, or the folder cannot be written.
        """
        changed = [
            f"config.{key}"
            for key, content in contents.items()
            if self._contents.get(key, content) != content
        ]
        if changed:
            raise UserError(
                f"The training in {self.path} was begun with another content of "
                f"{' and '.join(changed)} (names and labels of images, parameters of a network); "
                "put it back, or use another --workdir."
            )
        if parallel.process_index() == 0:
            write_config(self.path, {**self._config, "contents": dict(contents)})
            table = get_parameter_overview(state.variables, include_stats=False)
            write_file(self.path / "parameters.txt", f"{table}\n".encode())
            for name in ("network", "best"):
                store.recover_network(self.path / name)
        self._checkpoints = store.training_checkpoints(self.path / "checkpoints")
        state = store.restore_state(self._checkpoints, state)
        # As process 0 finds them: it alone writes these files, the next one after all are here.
        found = [self._read_best(), last_evaluation(self.path, int(state.step))]
        self.best, self.last = parallel.gather("earlier evaluations", found)[0]
        return state

    @property
    def last_good(self) -> str:
        """The newest checkpoint, in words."""
        self._checkpoints.wait_until_finished()
        step = self._checkpoints.latest_step()
        if step is None:
            return "no checkpoint was saved before"
        return f"the last good checkpoint is {self.path / 'checkpoints' / str(step)}"

    def save(self, state: TrainState, network: Mapping[str, Any]) -> None:
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
        self.save_network(state, network)

    def save_network(self, state: TrainState, network: Mapping[str, Any]) -> None:
        """Saves the network as it is now."""
        self._write("network", state, network)

    def evaluated(
        self, state: TrainState, network: Mapping[str, Any], metrics: Mapping[str, float], name: str
    ) -> None:
        """Keeps an evaluation, and the network if its metric of this name is the lowest so far."""
        self.last = {"step": int(state.step), "metrics": dict(metrics)}
        if self.best is not None:
            before = self.best["metrics"][name]
            if not metrics[name] < before and math.isfinite(before):
                return
        self.best = self.last
        self._write("best", state, network)

    def close(self) -> None:
        """Waits for the saves in the background."""
        self._checkpoints.close()

    def _read_best(self) -> dict[str, Any] | None:
        file = self.path / "best" / "network.json"
        if not file.is_file():
            return None
        training = read_json(file, "give another --workdir")["training"]
        return {"step": training["step"], "metrics": training["metrics"]}

    def _write(self, name: str, state: TrainState, network: Mapping[str, Any]) -> None:
        made = {key: value for key, value in self._config.items() if key != "network"}
        evaluation = {"metrics": self.last["metrics"], "metrics_step": self.last["step"]}
        made = {**made, "step": int(state.step), **evaluation}
        store.save_network(self.path / name, {**network, "training": made}, state.ema)


@jax.jit
def all_finite(tree: Any) -> jax.Array:
    """Whether every number of a tree is finite."""
    return jnp.stack([jnp.isfinite(x).all() for x in jax.tree.leaves(tree)]).all()
