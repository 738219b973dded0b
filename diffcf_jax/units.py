"""The unit of a regressor's values: what users read and write, and what the network predicts."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from diffcf_jax.counterfactual.types import Counterfactual


@dataclasses.dataclass(frozen=True)
class Unit:
    """A network predicts `(y - mean) / scale` of a label y in the user's unit.

    Targets, thresholds and results are in the user's unit; the methods see only what the network
    predicts, so that their hyper-parameters mean the same for every label.

    Attributes:
        name: such as "years"; None for a number without a unit.
        mean: in the user's unit.
        scale: in the user's unit.
    """

    name: str | None = None
    mean: float = 0.0
    scale: float = 1.0

    def normalise(self, y: Any) -> Any:
        """From the user's unit to what the network predicts."""
        return (y - self.mean) / self.scale

    def denormalise(self, y: Any) -> Any:
        """From what the network predicts to the user's unit."""
        return self.mean + self.scale * y

    def denormalise_result(self, found: Counterfactual) -> Counterfactual:
        """A result with its values in the user's unit."""
        if self.mean == 0 and self.scale == 1:
            return found
        return found.replace(
            y_initial=self.denormalise(found.y_initial),
            y_reconstruction=self.denormalise(found.y_reconstruction),
            y_final=self.denormalise(found.y_final),
            curve=self.denormalise(found.curve),
        )


def unit_of(description: Mapping[str, Any], config: Mapping[str, Any]) -> Unit:
    """The unit of a regressor: what the config says, else what the checkpoint says.

    Args:
        description: of the network, with `unit`, `mean` and `scale`.
        config: may hold the same keys; a missing one or None leaves the checkpoint's value.
    """

    def choose(key: str, default: Any) -> Any:
        value = config.get(key)
        return value if value is not None else description.get(key, default)

    return Unit(choose("unit", None), choose("mean", 0.0), choose("scale", 1.0))
