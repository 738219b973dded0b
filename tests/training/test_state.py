import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from diffcf_jax.errors import UserError
from diffcf_jax.training.state import (
    create_state,
    make_optimizer,
    make_update,
    random_flips,
    random_rolls,
)


def linear_loss(variables, images, labels, key, progress):
    predictions = images.mean((1, 2, 3)) * variables["params"]["w"]
    return jnp.mean(jnp.square(predictions - labels)), ({}, {})


def test_update_is_adamw_and_an_average():
    optimizer = make_optimizer(10, 0.1, weight_decay=0.01)
    variables = {"params": {"w": jnp.array(1.0)}}
    state = create_state(variables, optimizer)
    images = np.full((2, 4, 4, 3), 255, np.uint8)
    labels = jnp.array([3.0, 3.0])
    state, metrics = jax.jit(make_update(linear_loss, optimizer, 0.9, 10))(
        state, images, labels, jax.random.key(0)
    )
    assert float(metrics["loss"]) == pytest.approx(4.0)  # (1 - 3)^2
    assert float(metrics["grad_norm"]) == pytest.approx(4.0)
    # Adam's first step has the size of the rate; the decay takes rate * 0.01 * w.
    w = 1 + 0.1 - 0.1 * 0.01
    assert float(state.variables["params"]["w"]) == pytest.approx(w, rel=1e-5)
    assert float(state.ema["params"]["w"]) == pytest.approx(1 + 0.9 * (w - 1), rel=1e-5)


def test_schedules():
    for schedule, last in (("constant", 1.0), ("cosine", 0.0)):
        optimizer = make_optimizer(100, 1.0, 10, schedule)
        params = jnp.array(0.0)
        opt_state = optimizer.init(params)
        sizes = []
        for _ in range(100):
            updates, opt_state = optimizer.update(jnp.array(1.0), opt_state, params)
            sizes.append(-float(updates))
        np.testing.assert_allclose(sizes[:10], np.arange(10) / 10, atol=1e-5)
        assert sizes[99] == pytest.approx(last, abs=2e-3)
    with pytest.raises(UserError, match="warmup_steps"):
        make_optimizer(10, 1.0, warmup_steps=10)
    with pytest.raises(UserError, match="schedule 'step'"):
        make_optimizer(10, 1.0, schedule="step")


def test_clip_bounds_the_update():
    optimizer = make_optimizer(10, 1.0, clip=1.0)
    assert isinstance(optimizer, optax.GradientTransformation)
    small, _ = optimizer.update(jnp.array(1e-3), optimizer.init(jnp.array(0.0)), jnp.array(0.0))
    large, _ = optimizer.update(jnp.array(1e3), optimizer.init(jnp.array(0.0)), jnp.array(0.0))
    assert float(small) == pytest.approx(float(large), rel=1e-3)  # Adam is scale free either way


def test_augmentations_move_pixels_only():
    images = jax.random.uniform(jax.random.key(0), (16, 5, 6, 3))
    for augment in (random_flips, random_rolls):
        moved = augment(images, jax.random.key(1))
        np.testing.assert_allclose(
            jnp.sort(moved.reshape(16, -1)), jnp.sort(images.reshape(16, -1))
        )
        assert not np.allclose(moved, images)
    flipped = random_flips(images, jax.random.key(1))
    kinds = set()
    for before, after in zip(images, flipped, strict=True):
        options = [before, before[:, ::-1], before[::-1], before[::-1, ::-1]]
        kinds |= {i for i, option in enumerate(options) if np.array_equal(option, after)}
    assert kinds == {0, 1, 2, 3}
