import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffcf_jax.checkpoint.network import build_module, init_variables
from diffcf_jax.diffusion.schedule import make_diffusion, q_sample
from diffcf_jax.training.loop import make_objective
from diffcf_jax.training.objectives import RegressionObjective, variational_bound
from tests import tiny


@pytest.mark.parametrize("description", [tiny.DDPM, tiny.DIFFAE], ids=["ddpm", "diffae"])
def test_generator_losses(description):
    objective = make_objective(description, {})
    variables = init_variables(description, jax.random.key(0))
    images = jax.random.uniform(jax.random.key(1), (4, 64, 64, 3))
    loss, (metrics, updated) = objective.loss(variables, images, None, jax.random.key(2), 0.5)
    assert updated == {}
    # A network that starts at zero predicts nothing of its target, whose power is about 1 (noise)
    # or below it (v).
    assert 0.3 < float(metrics["mse"]) < 1.1
    assert float(loss) >= float(metrics["mse"])
    rows = objective.picture(variables, images, jax.random.key(3))
    assert all(row.shape == images.shape for row in rows)
    assert set(objective.evaluate(variables, images, None, jax.random.key(4))) >= {"loss"}


def test_max_timestep_bounds_the_noise():
    limited = make_objective(tiny.DDPM, {"max_timestep": 1})
    variables = init_variables(tiny.DDPM, jax.random.key(0))
    seen = []

    class Spy:
        def apply(self, variables, x_t, t, **kwargs):
            seen.append(t)
            return jnp.zeros((*x_t.shape[:-1], 6))

    spying = dataclasses.replace(limited, module=Spy())
    spying.loss(variables, jnp.zeros((64, 8, 8, 3)), None, jax.random.key(0), 0.5)
    assert int(seen[0].max()) == 0


def test_variational_bound_is_least_for_the_true_posterior():
    diffusion = make_diffusion(100)
    x = jax.random.uniform(jax.random.key(0), (3, 8, 8, 3), minval=-1, maxval=1)
    noise = jax.random.normal(jax.random.key(1), x.shape)
    t = jnp.array([2, 5, 20])
    x_t = q_sample(diffusion, x, t, noise)
    bounds = []
    for v in (-1.0, 0.0, 1.0):  # -1 is the posterior's variance
        output = jnp.concatenate([noise, jnp.full_like(noise, v)], axis=-1)
        bounds.append(variational_bound(diffusion, output, x, x_t, t))
    np.testing.assert_allclose(bounds[0], 0, atol=1e-4)
    assert (bounds[1] > bounds[0]).all() and (bounds[2] > bounds[1]).all()


def test_variational_bound_at_zero_is_a_likelihood_of_256_values():
    diffusion = make_diffusion(100)
    # Sums to 1 over all grey values, for any mean: exp(-bits ln 2) is a probability.
    values = jnp.arange(256.0) * 2 / 255 - 1
    x = jnp.broadcast_to(values[:, None, None, None], (256, 1, 1, 1))
    x_t = jnp.full((256, 1, 1, 1), 0.3)
    output = jnp.concatenate([jnp.zeros_like(x_t), jnp.zeros_like(x_t)], axis=-1)
    t = jnp.zeros(256, jnp.int32)
    bits = variational_bound(diffusion, output, x, x_t, t)
    assert float(jnp.sum(jnp.exp2(-bits))) == pytest.approx(1.0, abs=1e-3)


def test_adversarial_images_are_harder_and_within_the_radius():
    module = build_module(tiny.REGRESSOR)
    variables = init_variables(tiny.REGRESSOR, jax.random.key(0))
    images = jax.random.uniform(jax.random.key(1), (8, 64, 64, 3))
    labels = jnp.linspace(0, 1, 8)
    clean, (_, updated) = RegressionObjective(module).loss(
        variables, images, labels, jax.random.key(2), 1.0
    )
    hard, _ = RegressionObjective(module, 0.03).loss(
        variables, images, labels, jax.random.key(2), 1.0
    )
    assert set(updated) == {"batch_stats"}
    assert float(hard) > float(clean)
