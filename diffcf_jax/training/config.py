"""The options of a training: typed, with their defaults, checked before anything is opened."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

from diffcf_jax.errors import UserError
from diffcf_jax.training.options import at_least, build, check_types


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """AdamW with linear warm-up, then a constant rate or a cosine to zero.

    Attributes:
        learning_rate: the highest rate.
        warmup_steps: updates until it is reached; fewer than the training has.
        schedule: "constant" or "cosine".
        weight_decay: decoupled, as in AdamW.
        clip: the largest global norm of a gradient; None or 0 for no clipping.
    """

    learning_rate: float
    warmup_steps: int = 0
    schedule: Literal["constant", "cosine"] = "constant"
    weight_decay: float = 0.0
    clip: float | None = None

    def __post_init__(self) -> None:
        """Checks types and ranges."""
        check_types(self, "config.optimizer")
        for name in ("learning_rate", "warmup_steps", "weight_decay", "clip"):
            at_least(0, f"config.optimizer.{name}", getattr(self, name))


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Random changes of images, see `augment.augment`.

    Attributes:
        flips: mirror in both directions.
        mirror: mirror left to right only.
        rolls: shift cyclically.
        geometric: see `augment.random_geometry`: the probability of each of its changes. A DDPM is
            told of them. A Diff-AE is not: they can be seen in the image, so that z_sem tells them,
            and a decoding is only ever asked for with the z_sem of an image.
        color_noise: see `augment.random_colors`: the standard deviation of red, green and blue.
        tile_noise: see `augment.random_tiles`.
    """

    flips: bool = False
    mirror: bool = False
    rolls: bool = False
    geometric: float = 0.0
    color_noise: Sequence[float] | None = None
    tile_noise: float | None = None

    def __post_init__(self) -> None:
        """Checks types and ranges."""
        check_types(self, "config.augment")
        if self.color_noise and len(self.color_noise) != 3:
            raise UserError(
                f"config.augment.color_noise={self.color_noise} must have three numbers, for red, "
                "green and blue."
            )
        for std in self.color_noise or ():
            at_least(0, "config.augment.color_noise: a standard deviation", std)
        at_least(0, "config.augment.tile_noise", self.tile_noise)
        if not 0 <= self.geometric <= 1:
            raise UserError(f"config.augment.geometric={self.geometric} must lie between 0 and 1.")


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """What a training is judged by.

    Attributes:
        images: the number of held-out images.
        regressor: network directory of the regressor for the Fréchet distance; "": no distance.
    """

    images: int = 256
    regressor: str = ""

    def __post_init__(self) -> None:
        """Checks types and ranges."""
        check_types(self, "config.evaluation")
        at_least(1, "config.evaluation.images", self.images)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Everything that determines a training.

    Attributes:
        network: its description, see `task.make_task`.
        data: see `data.open.open_training_data`.
        objective: attributes of the network's objective, see `objectives.make_objective`.
        optimizer: see `OptimizerConfig`.
        steps: number of updates.
        batch_size: images per update, of all devices of all processes.
        ema_decay: of the exponential moving average of the parameters.
        augment: see `Augmentation`.
        seed: of initialisation, data order and noise.
        log_every: updates between two lines of metrics.
        evaluate_every: updates between two evaluations on held-out images.
        save_every: updates between two checkpoints.
        accumulate: parts of a batch that are computed one after the other; saves memory.
        precision: of the computation; parameters, optimiser, moving average, norms, softmax and
            losses are float32 with both.
        workers: processes that read images; 0 reads them in this one.
        init: network directory or name of a shipped network to start from; "" starts afresh.
        evaluation: see `EvaluationConfig`.
        image_size: in pixels, in place of the network's.
    """

    network: Mapping[str, Any]
    data: Mapping[str, Any]
    objective: Mapping[str, Any]
    optimizer: OptimizerConfig
    steps: int
    batch_size: int
    ema_decay: float
    augment: Augmentation
    seed: int
    log_every: int
    evaluate_every: int
    save_every: int
    accumulate: int = 1
    precision: Literal["float32", "bfloat16"] = "float32"
    workers: int = 0
    init: str = ""
    evaluation: EvaluationConfig = EvaluationConfig()
    image_size: int | None = None

    def __post_init__(self) -> None:
        """Checks types and ranges."""
        check_types(self, "config")
        counts = ("steps", "batch_size", "accumulate", "log_every", "evaluate_every", "save_every")
        for name in (*counts, "image_size"):
            at_least(1, f"config.{name}", getattr(self, name))
        for name in ("workers", "seed"):
            at_least(0, f"config.{name}", getattr(self, name))
        if not 0 <= self.ema_decay <= 1:
            raise UserError(f"config.ema_decay={self.ema_decay} must lie between 0 and 1.")
        if self.optimizer.warmup_steps >= self.steps:
            # Not shortened without asking: a run that goes on for longer would warm up again.
            raise UserError(
                f"config.optimizer.warmup_steps={self.optimizer.warmup_steps} must be less than "
                f"config.steps={self.steps}: give --config.steps={self.steps} "
                f"--config.optimizer.warmup_steps={self.steps // 10}."
            )

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> Self:
        """Makes it from the keys of a config file.

        Raises:
            UserError: a key is unknown or missing, or a value is of the wrong type or out of range.
        """
        return build(cls, config, "config")

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON would hold it; `from_dict` reads it."""
        return json.loads(json.dumps(dataclasses.asdict(self)))
