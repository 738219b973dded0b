"""What is wrong in a config is said in one sentence, before anything is opened."""

import dataclasses

import pytest

from diffcf_jax.errors import UserError
from diffcf_jax.training.config import OptimizerConfig, TrainConfig

CONFIG = {
    "network": {"kind": "resnet", "model": {}}, "data": {"name": "squares"}, "objective": {},
    "optimizer": {"learning_rate": 1e-3}, "steps": 20, "batch_size": 4, "ema_decay": 0.9,
    "augment": {"flips": True}, "seed": 0, "log_every": 1, "evaluate_every": 4, "save_every": 2,
}  # fmt: skip


def test_defaults_and_back():
    config = TrainConfig.from_dict({**CONFIG, "evaluation": {"regressor": "judge"}})
    assert config.optimizer == OptimizerConfig(learning_rate=1e-3, schedule="constant", clip=None)
    assert config.evaluation.images == 256 and config.augment.flips and not config.augment.mirror
    assert TrainConfig.from_dict(config.to_dict()) == config
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.steps = 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"step": 4}, "Unknown config.step: did you mean config.steps?"),
        ({"xyz": 4}, "Unknown config.xyz: use network, data, objective, "),
        ({"augment": {"flip": True}}, "Unknown config.augment.flip: did you mean config.augment.f"),
        ({"optimizer": {"learning_rat": 1.0}}, "did you mean config.optimizer.learning_rate?"),
        ({"optimizer": {}}, "config.optimizer.learning_rate is missing: add it to the config"),
        ({"optimizer": 3}, "config.optimizer=3 must be a dictionary."),
        ({"steps": "4"}, "config.steps='4' must be a whole number."),
        ({"steps": True}, "config.steps=True must be a whole number."),
        ({"init": None}, "config.init=None must be text."),
        ({"augment": {"rolls": 1}}, "config.augment.rolls=1 must be True or False."),
        ({"augment": {"color_noise": "abc"}}, "config.augment.color_noise='abc' must be a list."),
        ({"augment": {"color_noise": (0.1,)}}, "color_noise=(0.1,) must have three numbers"),
        ({"augment": {"tile_noise": -0.1}}, "config.augment.tile_noise=-0.1 must be at least 0."),
        ({"augment": {"geometric": 1.2}}, "config.augment.geometric=1.2 must lie between 0 and 1."),
        ({"log_every": 0}, "config.log_every=0 must be at least 1."),
        ({"evaluate_every": 0}, "config.evaluate_every=0 must be at least 1."),
        ({"save_every": 0}, "config.save_every=0 must be at least 1."),
        ({"accumulate": 0}, "config.accumulate=0 must be at least 1."),
        ({"evaluation": {"images": 0}}, "config.evaluation.images=0 must be at least 1."),
        ({"workers": -1}, "config.workers=-1 must be at least 0."),
        ({"seed": -1}, "config.seed=-1 must be at least 0."),
        ({"ema_decay": float("nan")}, "config.ema_decay=nan must lie between 0 and 1."),
        ({"optimizer": {"learning_rate": float("nan")}}, "learning_rate=nan must be at least 0."),
        ({"precision": "half"}, "Unknown config.precision 'half': use float32 or bfloat16."),
        (
            {"optimizer": {"learning_rate": 1.0, "schedule": "step"}},
            "Unknown config.optimizer.schedule 'step': use constant or cosine.",
        ),
    ],
)
def test_what_is_wrong_is_named(change, message):
    with pytest.raises(UserError) as caught:
        TrainConfig.from_dict({**CONFIG, **change})
    assert message in str(caught.value)


def test_missing_keys_are_named():
    for key in CONFIG:
        with pytest.raises(UserError, match=f"config.{key} is missing"):
            TrainConfig.from_dict({k: v for k, v in CONFIG.items() if k != key})


def test_a_short_training_is_told_which_flags_to_give():
    """A warm-up that does not fit is not shortened in silence, and both flags are given."""
    config = {**CONFIG, "optimizer": {"learning_rate": 1e-3, "warmup_steps": 200}}
    with pytest.raises(UserError) as caught:
        TrainConfig.from_dict(config)
    assert str(caught.value) == (
        "config.optimizer.warmup_steps=200 must be less than config.steps=20: "
        "give --config.steps=20 --config.optimizer.warmup_steps=2."
    )
    fitting = {**config, "optimizer": {"learning_rate": 1e-3, "warmup_steps": 2}}
    assert TrainConfig.from_dict(fitting).optimizer.warmup_steps == 2
