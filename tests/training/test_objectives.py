import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffcf_jax.checkpoint.network import Network, build_module
from diffcf_jax.diffusion.schedule import make_diffusion, q_sample, training_target
from diffcf_jax.errors import UserError
from diffcf_jax.training.generators import multiscale_error, variational_bound
from diffcf_jax.training.objectives import make_objective
from diffcf_jax.training.regression import RegressionObjective
from diffcf_jax.training.task import make_module
from tests import tiny

REGRESSOR = {**tiny.REGRESSOR, "mean": 0.0, "scale": 1.0}
LATENT = {
    "kind": "latent_dpm",
    "model": {"channels": 8, "hidden": 16, "layers": 3},
    "diffusion": {"steps": 100, "schedule": "const0.008", "variance": "fixed_large"},
    "image_size": tiny.SIZE,
}


def objective_of(description, arguments=None, **others):
    return make_objective(description, build_module(description), arguments or {}, **others)


@pytest.fixture(scope="module")
def images():
    return jax.random.uniform(jax.random.key(1), (4, 64, 64, 3))


@pytest.fixture(scope="module")
def diffae():
    return Network(tiny.DIFFAE, build_module(tiny.DIFFAE), tiny.variables(tiny.DIFFAE))


def held_out_losses(objective, variables, images, key):
    """The loss of each image; XLA drops the pictures that `evaluate` measures besides."""
    return jax.jit(lambda v: objective.evaluate(v, images, None, key)["loss"])(variables)


@pytest.mark.parametrize(
    ("description", "options"),
    [(tiny.DDPM, {}), (tiny.DIFFAE, {"decode_steps": 2})],
    ids=["ddpm", "diffae"],
)
def test_generator_losses(description, options, images):
    objective = objective_of(description, options)
    variables = tiny.variables(description)
    inputs = (images, None) if description is tiny.DDPM else images
    loss, (metrics, updated) = jax.jit(objective.loss)(
        variables, inputs, None, jax.random.key(2), 0.5
    )
    assert updated == {}
    # A network whose last layer is small predicts next to nothing of its target, whose power is
    # about 1 (noise) or below it (v).
    assert 0.3 < float(metrics["mse"]) < 1.1
    assert float(loss) >= float(metrics["mse"])
    rows = jax.eval_shape(objective.picture, variables, images, jax.random.key(3))
    assert all(row.shape == images.shape for row in rows)
    found = jax.jit(objective.evaluate)(variables, images, None, jax.random.key(2))
    assert all(values.shape == (4,) for values in found.values())
    assert float(found["loss"].mean()) == pytest.approx(float(loss), rel=1e-5)  # no dropout


def test_noise_weighting(images):
    uniform, weighted = (
        objective_of(tiny.DIFFAE, {"weighting": w, "decode_steps": 2}) for w in ("uniform", "noise")
    )
    variables, key = tiny.variables(tiny.DIFFAE), jax.random.key(2)
    losses = [held_out_losses(o, variables, images, key) for o in (uniform, weighted)]
    t = jax.random.randint(jax.random.split(key, 3)[0], (4,), 0, uniform.diffusion.num_timesteps)
    wanted = np.sqrt(1 - uniform.diffusion.alphas_cumprod)[t]
    np.testing.assert_allclose(losses[1] / losses[0], wanted, rtol=1e-5)
    with pytest.raises(UserError, match="weighting 'x'"):
        objective_of(tiny.DIFFAE, {"weighting": "x"})


def test_scales(images):
    objective = objective_of(tiny.DIFFAE, {"scales": (1, 4), "decode_steps": 2})
    key = jax.random.key(2)
    # A network of zeros misses the whole target.
    zeros = jax.tree.map(jnp.zeros_like, tiny.variables(tiny.DIFFAE))
    found = held_out_losses(objective, zeros, images, key)
    key_t, key_noise, _ = jax.random.split(key, 3)
    diffusion = objective.diffusion
    t = jax.random.randint(key_t, (4,), 0, diffusion.num_timesteps)
    noise = jax.random.normal(key_noise, images.shape)
    target = np.asarray(training_target(diffusion, 2 * images - 1, t, noise))
    areas = target.reshape(4, 16, 4, 16, 4, 3).mean((2, 4))
    wanted = (np.square(target).mean((1, 2, 3)) + 16 * np.square(areas).mean((1, 2, 3))) / 2
    np.testing.assert_allclose(found, wanted, rtol=1e-4)
    with pytest.raises(UserError, match="scales: 5 does not divide 64"):
        multiscale_error(images, (1, 5))


def test_max_timestep_bounds_the_noise():
    seen = []

    class Spy:
        def apply(self, variables, x_t, t, **kwargs):
            jax.debug.callback(seen.append, t)
            return jnp.zeros((*x_t.shape[:-1], 6))

    spying = dataclasses.replace(objective_of(tiny.DDPM, {"max_timestep": 1}), module=Spy())
    jax.jit(spying.loss)({}, (jnp.zeros((64, 8, 8, 3)), None), None, jax.random.key(0), 0.5)
    jax.effects_barrier()
    assert int(seen[0].max()) == 0


def test_options_are_checked_before_anything_is_trained(diffae):
    def refused(description, message, diffae=None, **options):
        with pytest.raises(UserError, match=rf"config\.objective\.{message}"):
            objective_of(description, options, diffae=diffae)

    refused(tiny.DDPM, "max_timestep=5000 must lie between 1 and the 100", max_timestep=5000)
    refused(tiny.DDPM, "max_timestep=0 must", max_timestep=0)
    refused(tiny.DDPM, "respacing: .* cannot be respaced to 200", respacing="200")
    refused(tiny.DDPM, "tau=51 must lie between 1 and 50", tau=51)
    refused(tiny.DIFFAE, "decode_steps: .* exactly 30 of 100", decode_steps=30)
    refused(LATENT, "sample_steps: .* exactly 30 of 100", diffae, sample_steps=30)
    refused(LATENT, "decode_steps: .* exactly 30 of 100", diffae, decode_steps=30)
    assert objective_of(tiny.DDPM, {"max_timestep": 100}).max_timestep == 100


def test_variational_bound_is_least_for_the_true_posterior():
    diffusion = make_diffusion(100)
    x = jax.random.uniform(jax.random.key(0), (3, 8, 8, 3), minval=-1, maxval=1)
    noise = jax.random.normal(jax.random.key(1), x.shape)
    t = jnp.array([2, 5, 20])
    x_t = q_sample(diffusion, x, t, noise)
    bounds = []
    bound = jax.jit(lambda output: variational_bound(diffusion, output, x, x_t, t))
    for v in (-1.0, 0.0, 1.0):  # -1 is the posterior's variance
        bounds.append(bound(jnp.concatenate([noise, jnp.full_like(noise, v)], axis=-1)))
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
    bits = jax.jit(lambda output: variational_bound(diffusion, output, x, x_t, t))(output)
    assert float(jnp.sum(jnp.exp2(-bits))) == pytest.approx(1.0, abs=1e-3)


def test_adversarial_images_are_harder():
    module = build_module(tiny.REGRESSOR)
    variables = tiny.variables(tiny.REGRESSOR)
    images = jax.random.uniform(jax.random.key(1), (8, 64, 64, 3))
    labels = jnp.linspace(0, 1, 8)
    losses = []
    for adversarial in (0.0, 0.03):
        objective = RegressionObjective(module, adversarial=adversarial)
        loss, (_, updated) = jax.jit(objective.loss)(
            variables, images, labels, jax.random.key(2), 1.0
        )
        assert set(updated) == {"batch_stats"}
        losses.append(float(loss))
    assert losses[1] > losses[0]


def test_l1_is_the_absolute_error(images):
    variables = tiny.variables(REGRESSOR)
    labels = jnp.array([0.0, 0.5, 1.0, 1.5])
    objective = objective_of({**REGRESSOR, "mean": 1.0, "scale": 2.0}, {"loss_type": "l1"})
    found = jax.jit(objective.evaluate)(variables, images, labels, jax.random.key(0))
    np.testing.assert_allclose(2 * found["loss"], found["mae"], rtol=1e-6)
    frozen = dataclasses.replace(objective, freeze_norm=True)
    loss, _ = jax.jit(frozen.loss)(variables, images, labels, jax.random.key(0), 0.5)
    assert float(loss) == pytest.approx(float(found["loss"].mean()), rel=1e-5)
    with pytest.raises(UserError, match="loss_type 'huber': use l1 or mse"):
        dataclasses.replace(objective, loss_type="huber")
    for scale in (0.0, -1.0, 1e-40, float("nan")):
        with pytest.raises(UserError, match=r"config\.network\.scale=.* must be positive"):
            dataclasses.replace(objective, scale=scale)


def test_labels_are_normalised_inside(images):
    variables = tiny.variables(REGRESSOR)
    labels = jnp.array([0.0, 0.5, 1.0, 1.5])
    plain = objective_of(REGRESSOR)
    years = objective_of({**REGRESSOR, "mean": 40.0, "scale": 20.0})
    key = jax.random.key(0)

    @jax.jit
    def both(labels):
        unscaled = labels * 20 + 40
        return (
            plain.loss(variables, images, labels, key, 0.5)[0],
            years.loss(variables, images, unscaled, key, 0.5)[0],
            20 * plain.evaluate(variables, images, labels, key)["mae"],
            years.evaluate(variables, images, unscaled, key)["mae"],
        )

    loss, loss_years, mae, mae_years = both(labels)
    np.testing.assert_allclose(loss, loss_years, rtol=1e-4)
    np.testing.assert_allclose(mae, mae_years, rtol=1e-4)


def gradients_on_running_statistics(description, arguments, images):
    """Gradients of a loss that reads and keeps the running statistics, as evaluation does."""
    objective = objective_of(description, arguments)
    variables = tiny.variables(description)
    labels, key = jnp.arange(4.0), jax.random.key(0)

    def loss(params):
        return objective.loss({**variables, "params": params}, images, labels, key, 0.5)

    value_and_grad = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (value, (_, updated)), grads = value_and_grad(variables["params"])
    jax.tree.map(np.testing.assert_array_equal, updated["batch_stats"], variables["batch_stats"])
    found = jax.jit(objective.evaluate)(variables, images, labels, key)
    assert float(value) == pytest.approx(float(found["loss"].mean()), rel=1e-5)
    return objective, grads


def test_frozen_features_keep_everything_but_the_head(images):
    description = {
        "kind": "densenet", "image_size": 64, "mean": 0.0, "scale": 1.0,
        "model": {"growth": 4, "blocks": (1, 1), "init_features": 4},
    }  # fmt: skip
    arguments = {"freeze_features": True}
    objective, grads = gradients_on_running_statistics(description, arguments, images)
    assert objective.trained("classifier") and not objective.trained("conv0")
    for name, module in grads.items():
        moved = any(bool(jnp.any(g != 0)) for g in jax.tree.leaves(module))
        assert moved == (name == "classifier"), name


def test_frozen_norm_trains_the_network_as_it_will_be_used(images):
    description = {
        "kind": "resnet", "image_size": 16, "mean": 0.0, "scale": 1.0,
        "model": {"width": 4, "blocks": (1, 1), "max_pool": False, "hidden": 8},
    }  # fmt: skip
    arguments = {"freeze_norm": True}
    objective, grads = gradients_on_running_statistics(description, arguments, images)
    assert objective.trained is None
    assert all(bool(jnp.any(g != 0)) for g in jax.tree.leaves(grads["conv1"]))


def test_latent_dpm(diffae):
    objective = objective_of(LATENT, {"sample_steps": 2, "decode_steps": 2}, diffae=diffae)
    variables = tiny.variables(LATENT)
    variables["stats"] = {"z_mean": jnp.full(8, 3.0), "z_std": jnp.full(8, 2.0)}
    codes = 3 + 2 * jax.random.normal(jax.random.key(1), (4, 8))
    loss, _ = jax.jit(objective.loss)(variables, codes, None, jax.random.key(2), 0.5)
    # The same as of normalised codes with no statistics.
    plain = {**variables, "stats": {"z_mean": jnp.zeros(8), "z_std": jnp.ones(8)}}
    same, _ = jax.jit(objective.loss)(plain, (codes - 3) / 2, None, jax.random.key(2), 0.5)
    assert float(loss) == pytest.approx(float(same), rel=1e-5)
    both = {**variables, **objective.frozen}
    rows = jax.eval_shape(objective.picture, both, codes, jax.random.key(3))
    assert [row.shape for row in rows] == [(4, 64, 64, 3)] * 2


def test_bfloat16_computes_close_to_float32_and_keeps_parameters(images):
    losses = {}
    for precision in ("float32", "bfloat16"):
        objective = make_objective(REGRESSOR, make_module(REGRESSOR, precision), {})
        variables = tiny.variables(REGRESSOR)

        def loss(v, objective=objective):
            return objective.loss(v, images, jnp.arange(4.0), jax.random.key(0), 1.0)[0]

        value_and_grad = jax.jit(jax.value_and_grad(loss))
        losses[precision], grads = value_and_grad(variables)
        assert {g.dtype for g in jax.tree.leaves(grads)} == {jnp.dtype("float32")}
    assert losses["bfloat16"].dtype == jnp.float32
    assert losses["bfloat16"] != losses["float32"]
    assert float(losses["bfloat16"]) == pytest.approx(float(losses["float32"]), rel=0.05)


def test_errors():
    with pytest.raises(UserError, match="Unknown config.objective.taus: .* config.objective.tau?"):
        objective_of(tiny.DDPM, {"taus": 3})
    wrong = {**tiny.DDPM, "diffusion": {"step": 100}}
    with pytest.raises(UserError, match="did you mean config.network.diffusion.steps?"):
        objective_of(wrong)
    with pytest.raises(UserError, match="config.objective.tau='5' must be a whole number"):
        objective_of(tiny.DDPM, {"tau": "5"})
    with pytest.raises(UserError, match="cannot be trained"):
        make_objective({**tiny.DDPM, "kind": "caffe_resnet"}, None, {})
