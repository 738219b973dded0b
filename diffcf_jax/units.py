"""The unit of a regressor: what users read and write, and what the network predicts."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from diffcf_jax.counterfactual.types import Counterfactual
from diffcf_jax.errors import UserError
from diffcf_jax.target import Range, Target, parse_target


@dataclasses.dataclass(frozen=True)
class Unit:
    """A network predicts `(y - mean) / scale` of a label y in the user's unit.

    Targets, thresholds and results are in the user's unit; the methods see only what the network
    predicts, so that their hyper-parameters mean the same for every label.

    Attributes:
        name: such as "years"; None for a number without a unit.
        mean: of the labels, in the user's unit.
        scale: of the labels, in the user's unit.
    """

    name: str | None = None
    mean: float = 0.0
    scale: float = 1.0

    def normalise(self, y: Any) -> Any:
        """Return (y - mean) / scale: from the user's unit to what the network predicts."""
        return (y - self.mean) / self.scale

    def normalise_target(self, target: Target) -> Target:
        """Return a target in what the network predicts."""
        if isinstance(target, Range):
            return Range(float(self.normalise(target.low)), float(self.normalise(target.high)))
        return target if isinstance(target, str) else float(self.normalise(target))

    def denormalise(self, y: Any) -> Any:
        """Return mean + scale y: from what the network predicts to the user's unit."""
        return self.mean + self.scale * y

    def denormalise_result(self, found: Counterfactual) -> Counterfactual:
        """Return a result with its values in the user's unit."""
        if self.mean == 0 and self.scale == 1:
            return found
        return found.replace(
            y_initial=self.denormalise(found.y_initial),
            y_reconstruction=self.denormalise(found.y_reconstruction),
            y_final=self.denormalise(found.y_final),
            curve=self.denormalise(found.curve),
        )


def label_range(description: Mapping[str, Any], config: Mapping[str, Any]) -> Range | None:
    """Return the range of a regressor's training labels, in its unit; None where it is not known.

    Args:
        description: of the network, with `labels`, [lowest, highest].
        config: may hold `labels` as text, such as 18..75, which comes first.

    Raises:
        UserError: the text is no range.
    """
    if text := config.get("labels"):
        try:
            found = parse_target(text)
        except ValueError:
            found = None
        if not isinstance(found, Range):
            raise UserError(f"config.regressor.labels={text} must be a range, such as 18..75.")
        return found
    ends = description.get("labels")
    return Range(*ends) if ends else None


def unit_of(description: Mapping[str, Any], config: Mapping[str, Any]) -> Unit:
    """Return the unit of a regressor, from its checkpoint or, where that has none, from the config.

    Args:
        description: of the network, with `unit`, `mean` and `scale`.
        config: may hold the same keys; None counts as missing.

    Raises:
        UserError: the two differ, or the numbers are not valid.
    """
    default = {"unit": None, "mean": 0.0, "scale": 1.0}
    stored = {key: description.get(key, value) for key, value in default.items()}
    wanted = {key: config[key] for key in default if config.get(key) is not None}
    if stored != default and not wanted.items() <= stored.items():
        raise UserError(
            f"The regressor's config says {_as_text({**default, **wanted})}, but its checkpoint "
            f"{_as_text(stored)}; set the correct values in the config."
        )
    chosen = {**stored, **wanted}
    unit = Unit(chosen["unit"] or None, float(chosen["mean"]), float(chosen["scale"]))
    if not (math.isfinite(unit.mean) and math.isfinite(unit.scale) and unit.scale > 0):
        raise UserError(
            f"The regressor's mean={unit.mean:g} must be finite, and its scale={unit.scale:g} "
            "finite and positive."
        )
    return unit


def _as_text(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in values.items())
