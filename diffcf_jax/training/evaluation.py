"""How a training is doing: metrics and pictures of held-out images."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from diffcf_jax import parallel
from diffcf_jax.checkpoint.network import REGRESSORS
from diffcf_jax.checkpoint.store import load_network
from diffcf_jax.errors import UserError
from diffcf_jax.training.batching import Mapper
from diffcf_jax.training.frechet import features, frechet_distance
from diffcf_jax.training.task import Task, to_unit

Array = jax.Array

PICTURED_IMAGES = 8


class Evaluation:
    """Measures the network of a task on its held-out images.

    Args:
        task: see `make_task`.
        batch_size: images at a time, a multiple of the devices.
        seed: of the draws; every evaluation has the same.
        mesh: the devices.
        regressor: network directory of the regressor on whose features the Fréchet distance
            between held-out images and what the network makes of them is measured; "": no distance.

    Raises:
        UserError: the regressor does not fit.
    """

    def __init__(self, task: Task, batch_size: int, seed: int, mesh: Mesh, regressor: str = ""):
        goal = task.objective
        self._task, self._batch_size = task, batch_size
        self._frozen = dict(parallel.replicate(goal.frozen, mesh))
        self._distance = None

        def key(i: Array) -> Array:
            return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), 2), i)

        def measure(variables: Any, i: Array, inputs: Array, labels: Array) -> Any:
            return goal.evaluate(variables, to_unit(inputs), labels, key(i))

        def picture(variables: Any, i: Array, inputs: Array) -> Any:
            return goal.picture(variables, to_unit(inputs), key(i))

        self._measure, self._picture = Mapper(measure, mesh), Mapper(picture, mesh)
        devices = mesh.devices.size
        self._pictured = -(-PICTURED_IMAGES // devices) * devices
        if regressor and task.network["kind"] not in REGRESSORS:
            judge = _load_judge(regressor, task.network["image_size"])
            self._frozen["judge"] = parallel.replicate(judge.variables, mesh)

            def both(variables: Any, i: Array, inputs: Array, images: Array) -> list[Array]:
                made = goal.picture(variables, to_unit(inputs), key(i))[-1]
                pair = (to_unit(images), jnp.clip(made, 0, 1))
                return [features(judge.module, variables["judge"], x) for x in pair]

            self._distance = Mapper(both, mesh)

    def metrics(self, variables: Any) -> dict[str, float]:
        """Means over the held-out images.

        Args:
            variables: of the network, replicated on the mesh.

        Returns:
            The metrics of the objective, and `frechet_distance`.
        """
        variables, held_out = {**variables, **self._frozen}, self._task.held_out
        arrays = (held_out.inputs, held_out.labels)
        found = self._map(self._measure, variables, arrays)
        means = {name: float(np.mean(values)) for name, values in found.items()}
        if self._distance is not None:
            arrays = (held_out.inputs, held_out.images)
            means["frechet_distance"] = frechet_distance(
                *self._map(self._distance, variables, arrays)
            )
        return means

    def picture(self, variables: Any) -> list[np.ndarray] | None:
        """Rows of images [n, H, W, 3] in [0, 1]; None for a network that makes no images."""
        inputs = self._task.held_out.inputs
        inputs = inputs[:: max(1, len(inputs) // PICTURED_IMAGES)][:PICTURED_IMAGES]
        variables = {**variables, **self._frozen}
        return self._picture(variables, lambda i: (inputs[i],), len(inputs), self._pictured)

    def _map(self, mapper: Mapper, variables: Any, arrays: tuple[np.ndarray, ...]) -> Any:
        def read(rows: np.ndarray) -> tuple[np.ndarray, ...]:
            return tuple(a[rows] for a in arrays)

        return mapper(variables, read, len(arrays[0]), self._batch_size)


def _load_judge(directory: str | Path, image_size: int) -> Any:
    try:
        judge = load_network(directory)
    except UserError as error:
        raise UserError(f"config.evaluation.regressor: {error}") from None
    if judge.kind not in REGRESSORS or judge.description["image_size"] != image_size:
        raise UserError(
            f"config.evaluation.regressor is a {judge.kind} of "
            f"{judge.description['image_size']} pixels; give a regressor of {image_size}."
        )
    return judge
