import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffcf_jax.checkpoint.network import Network, build_module, init_variables
from diffcf_jax.counterfactual.build import build_method
from diffcf_jax.counterfactual.engine import Job, explain_all
from diffcf_jax.errors import UserError
from tests import tiny


def network(description):
    variables = init_variables(description, jax.random.key(0))
    # The zero layers of a fresh network would hide the code from the image.
    leaves, tree = jax.tree.flatten(variables)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    leaves = [
        leaf + 0.05 * jax.random.normal(key, leaf.shape)
        for leaf, key in zip(leaves, keys, strict=True)
    ]
    return Network(description, build_module(description), jax.tree.unflatten(tree, leaves))


def mean_red(variables, images):
    del variables
    return images[..., 0].mean((1, 2))


METHODS = {
    "ac-re": (tiny.DDPM, {"iterations": 12, "step_size": 0.02, "respacing": "20", "tau": 2}),
    "diffae-re": (
        tiny.DIFFAE,
        {"iterations": 8, "learning_rate": 0.3, "inversion_steps": 5, "decode_steps": 2},
    ),
}


@pytest.fixture(scope="module", params=METHODS)
def setting(request):
    description, options = METHODS[request.param]
    generator = network(description)
    # A loop compiles faster than its unrolled form.
    options = {**options, "threshold": 0.02, "unroll": False}
    method = build_method(request.param, generator, mean_red, options)
    params = {"generator": generator.variables, "regressor": {}}
    images = jax.random.uniform(jax.random.key(2), (5, 64, 64, 3))
    images = np.asarray(0.5 * images + 0.25)
    init = jax.jit(method.init)
    # Near, farther and unreachable: the images need different numbers of iterations.
    jobs = []
    for i, shift in enumerate((0.0, 0.05, 0.12, 0.9, -0.05)):
        start = init(params, images[i], 0.0, jax.random.key(0)).result.y_reconstruction
        jobs.append(Job(i, images[i], float(start) + shift))
    return method, params, jobs


def explain(setting, batch_size, order=None):
    method, params, jobs = setting
    jobs = [jobs[i] for i in order] if order else jobs
    found = explain_all(method, params, iter(jobs), batch_size, seed=7)
    return {finished.job.id: finished.counterfactual for finished in found}


def test_every_job_is_judged_by_the_image_that_is_saved(setting):
    method, _, jobs = setting
    results = explain(setting, 3)
    assert sorted(results) == [0, 1, 2, 3, 4]
    for job in jobs:
        result = results[job.id]
        np.testing.assert_allclose(result.image * 255, np.round(result.image * 255), atol=1e-4)
        y = float(mean_red(None, jnp.asarray(result.image)[None])[0])
        assert float(result.y_final) == pytest.approx(y, abs=1e-5)
        assert bool(result.success) == (abs(y - job.target) <= method.threshold)
        curve = result.curve[: result.iterations]
        assert np.isfinite(curve).all() and np.isnan(result.curve[result.iterations :]).all()
    assert results[0].success and not results[3].success
    assert results[3].iterations == method.iterations
    assert len({int(result.iterations) for result in results.values()}) > 1


def test_results_do_not_depend_on_batch_or_order(setting):
    reference = explain(setting, 1)
    for batch_size, order in ((3, None), (3, [3, 1, 4, 0, 2])):
        results = explain(setting, batch_size, order)
        for i, result in reference.items():
            assert int(results[i].iterations) == int(result.iterations)
            # One grey value where a rounding falls the other way.
            np.testing.assert_allclose(results[i].image, result.image, atol=1.01 / 255)
            assert np.mean(results[i].image != result.image) < 0.01
            np.testing.assert_allclose(results[i].y_final, result.y_final, atol=1e-4)


def test_jobs_are_read_lazily(setting):
    method, params, jobs = setting
    read = []

    def reading():
        for job in jobs:
            read.append(job.id)
            yield job

    next(explain_all(method, params, reading(), 1, seed=0))
    assert len(read) <= 2


def test_build_method_refuses_what_does_not_fit():
    generator = network(tiny.DDPM)
    for name, options, message in (
        ("ac", {}, "Unknown method 'ac'"),
        ("diffae-re", {}, "needs a generator of kind diffae"),
        ("ac-re", {"taus": 3}, "does not fit ac-re.*taus"),
        ("ac-re", {"tau": 60}, "tau=60 must lie between 1 and 50"),
    ):
        with pytest.raises(UserError, match=message):
            build_method(name, generator, mean_red, options)
