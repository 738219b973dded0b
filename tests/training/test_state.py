import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from diffcf_jax.errors import UserError
from diffcf_jax.training.state import create_state, make_optimizer, make_update


def linear_loss(variables, inputs, labels, key, progress):
    mse = jnp.mean(jnp.square(inputs * variables["params"]["w"] - labels))
    count = {"stats": {"n": variables["stats"]["n"] + 1}} if "stats" in variables else {}
    return mse, ({"progress": progress}, count)


def update_with(optimizer, **options):
    return jax.jit(make_update(linear_loss, optimizer, 0.9, 10, 0, lambda x, _: x, **options))


def test_update_is_adamw_and_an_average():
    optimizer = make_optimizer(10, 0.1, weight_decay=0.01)
    variables = {"params": {"w": jnp.array(1.0)}}
    state = create_state(variables, optimizer)
    state, metrics = update_with(optimizer)(state, jnp.ones(2), jnp.array([3.0, 3.0]))
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


def test_accumulated_parts_make_the_same_update():
    optimizer = make_optimizer(10, 0.1)
    variables = {"params": {"w": jnp.array(1.0)}, "stats": {"n": jnp.array(0)}}
    inputs, labels = jax.random.normal(jax.random.key(0), (2, 12))
    results = []
    for parts in (1, 3):
        state = create_state(variables, optimizer)
        state, metrics = update_with(optimizer, accumulate=parts)(state, inputs, labels)
        assert int(state.variables["stats"]["n"]) == parts
        results.append((state.variables["params"], metrics))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), *results)


def test_what_is_not_trained_stays_to_the_last_bit():
    optimizer = make_optimizer(10, 0.1, weight_decay=0.5, clip=1.0, trained={"head"}.__contains__)
    params = {"body": {"w": jnp.array(2.0)}, "head": {"w": jnp.array(2.0)}}
    grads = {"body": {"w": jnp.array(1e6)}, "head": {"w": jnp.array(1.0)}}
    updates, _ = optimizer.update(grads, optimizer.init(params), params)
    assert float(updates["body"]["w"]) == 0
    assert float(updates["head"]["w"]) == pytest.approx(-0.1 - 0.1 * 0.5 * 2, rel=1e-5)
