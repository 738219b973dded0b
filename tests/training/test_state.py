import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffcf_jax.training.config import OptimizerConfig
from diffcf_jax.training.state import create_state, make_optimizer, make_update


def linear_loss(variables, inputs, labels, key, progress):
    mse = jnp.mean(jnp.square(inputs * variables["params"]["w"] - labels))
    count = {"stats": {"n": variables["stats"]["n"] + 1}} if "stats" in variables else {}
    return mse, ({"progress": progress}, count)


def update_with(optimizer, **options):
    return jax.jit(make_update(linear_loss, optimizer, 0.9, 10, 0, lambda x, _: x, **options))


def test_update_is_adamw_and_an_average():
    optimizer = make_optimizer(OptimizerConfig(0.1, weight_decay=0.01), 10)
    variables = {"params": {"w": jnp.array(1.0)}}
    state = create_state(variables, optimizer)
    state, metrics = update_with(optimizer)(state, jnp.ones(2), jnp.array([3.0, 3.0]))
    assert float(metrics["loss"]) == pytest.approx(4.0)  # (1 - 3)^2
    assert float(metrics["grad_norm"]) == pytest.approx(4.0)
    # Adam's first step has the size of the rate; the decay takes rate * 0.01 * w.
    w = 1 + 0.1 - 0.1 * 0.01
    assert float(state.variables["params"]["w"]) == pytest.approx(w, rel=1e-5)
    assert float(state.ema["params"]["w"]) == pytest.approx(1 + 0.9 * (w - 1), rel=1e-5)


def sizes(config, gradients, steps=100):
    """What an optimiser subtracts from a parameter at 0, for one gradient after another."""
    optimizer = make_optimizer(OptimizerConfig(**config), steps)
    update, params = jax.jit(optimizer.update), jnp.array(0.0)
    opt_state, found = optimizer.init(params), []
    for gradient in gradients:
        updates, opt_state = update(jnp.float32(gradient), opt_state, params)
        found.append(-float(updates))
    return found


@pytest.mark.parametrize(("schedule", "last"), [("constant", 1.0), ("cosine", 0.0)])
def test_schedules(schedule, last):
    config = {"learning_rate": 1.0, "warmup_steps": 10, "schedule": schedule}
    found = sizes(config, np.ones(100))
    np.testing.assert_allclose(found[:11], np.arange(11) / 10, atol=1e-5)
    assert found[99] == pytest.approx(last, abs=2e-3)
    assert sizes({**config, "warmup_steps": 0}, [1.0]) == pytest.approx([1.0], rel=1e-4)


def adam(gradients, b1=0.9, b2=0.999):
    m = v = 0
    for n, g in enumerate(gradients, 1):
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        yield m / (1 - b1**n) / np.sqrt(v / (1 - b2**n))


def test_clip_bounds_the_gradient():
    """Adam's first step has the same size for every gradient, so that the second shows it."""
    gradients = [0.5, 1e3]
    for clip, seen in ((None, gradients), (0, gradients), (1.0, [0.5, 1.0])):
        found = sizes({"learning_rate": 1.0, "clip": clip}, gradients)
        assert found == pytest.approx(list(adam(seen)), rel=1e-4), clip
    assert list(adam(gradients))[1] < 0.8 < 0.95 < list(adam([0.5, 1.0]))[1]


def test_clip_bounds_the_norm_of_all_gradients_together():
    optimizer = make_optimizer(OptimizerConfig(1.0, clip=1.0), 10)
    params = {"a": jnp.array(0.0), "b": jnp.array(0.0)}
    opt_state = optimizer.init(params)
    for a, b in ((0.1, 0.1), (30.0, 40.0)):
        grads = {"a": jnp.array(a), "b": jnp.array(b)}
        updates, opt_state = optimizer.update(grads, opt_state, params)
    for name, second in (("a", 0.6), ("b", 0.8)):
        assert -float(updates[name]) == pytest.approx(list(adam([0.1, second]))[1], rel=1e-4)


def test_accumulated_parts_make_the_same_update():
    optimizer = make_optimizer(OptimizerConfig(0.1), 10)
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
    config = OptimizerConfig(0.1, weight_decay=0.5, clip=1.0)
    optimizer = make_optimizer(config, 10, {"head"}.__contains__)
    params = {"body": {"w": jnp.array(2.0)}, "head": {"w": jnp.array(2.0)}}
    grads = {"body": {"w": jnp.array(1e6)}, "head": {"w": jnp.array(1.0)}}
    updates, _ = optimizer.update(grads, optimizer.init(params), params)
    assert float(updates["body"]["w"]) == 0
    assert float(updates["head"]["w"]) == pytest.approx(-0.1 - 0.1 * 0.5 * 2, rel=1e-5)
