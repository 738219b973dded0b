"""Several answers for one image and target."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffcf_jax.counterfactual import programs
from diffcf_jax.counterfactual.batching import Engine
from diffcf_jax.counterfactual.events import Finished, Job
from diffcf_jax.counterfactual.level_set import outside
from diffcf_jax.counterfactual.types import quantize
from tests.counterfactual import methods
from tests.counterfactual.test_newton import SOLVERS, newton


def search(method, jobs, batch_size):
    events = Engine(method, methods.variables(), batch_size, seed=3).run(iter(jobs))
    found = [event for event in events if isinstance(event, Finished)]
    results = {(event.job.id, event.answer): event.counterfactual for event in found}
    assert len(results) == len(found)
    return results, [(event.job.id, event.answer) for event in found]


@pytest.fixture(scope="module", params=SOLVERS)
def setting(request):
    """A method with three answers, jobs, and the results."""
    method = newton(request.param, answers=3)
    jobs = methods.make_jobs(methods.METHODS[request.param](), methods.variables(), 3)[1:]
    return request.param, method, jobs, *search(method, jobs, 2)


def test_each_answer_is_another_image_that_meets_the_target(setting):
    name, method, jobs, found, order = setting
    assert sorted(found) == [(job.id, k) for job in jobs for k in (1, 2, 3)]
    for job in jobs:
        assert [k for i, k in order if i == job.id] == [1, 2, 3]
        images = [found[job.id, k].image for k in (1, 2, 3)]
        for k, image in enumerate(images, 1):
            y = methods.regressor(methods.variables()["regressor"], jnp.asarray(image)[None])[0]
            reached = abs(y - job.target) <= method.options.threshold
            assert bool(found[job.id, k].success) == bool(reached)
        assert found[job.id, 1].success
        for a, b in ((0, 1), (0, 2), (1, 2)):
            if name == "ac-re":  # which regions of the image it takes
                change = [(images[k] != quantize(job.image)).any(-1) for k in (a, b)]
                assert not (change[0] & change[1]).any()
            else:
                assert not np.array_equal(images[a], images[b])


def test_the_first_answer_is_the_only_one_of_a_search_for_one(setting):
    name, _, jobs, found, _ = setting
    alone, _ = search(newton(name), jobs[:1], 2)
    (result,) = alone.values()
    np.testing.assert_array_equal(result.image, found[jobs[0].id, 1].image)


def test_neither_batch_nor_order_changes_an_answer(setting):
    _, method, jobs, found, _ = setting
    again, _ = search(method, jobs[::-1], 1)
    assert again.keys() == found.keys()
    for key, result in found.items():
        assert result.success == again[key].success
        assert result.iterations == again[key].iterations
        np.testing.assert_allclose(result.image, again[key].image, atol=2.01 / 255)


def test_changes_of_z_are_orthogonal():
    method, params = newton("diffae-re", answers=3), methods.variables()
    (_, job) = methods.make_jobs(methods.diffae_re(), params, 2)
    query = methods.Query.of(jnp.asarray(job.image), job.target)
    step = jax.jit(method.step)
    start, changes = jax.jit(method.init)(params, query, jax.random.key(0)), []
    for _ in range(3):
        state = start
        while not state.stopped:
            state = step(params, state)
        changes.append(np.asarray(state.result.codes[1] - state.z_0))
        start = method.another(start, state)
    changes = np.stack([change / np.linalg.norm(change) for change in changes])
    np.testing.assert_allclose(changes @ changes.T, np.eye(3), atol=1e-4)


def test_outside_of_a_basis():
    basis = jnp.eye(5)[:2]
    vector = jnp.asarray([3.0, -1.0, 2.0, 0.5, 0.0])
    np.testing.assert_allclose(outside(basis, vector), [0, 0, 2, 0.5, 0])
    np.testing.assert_array_equal(outside(jnp.zeros((0, 5)), vector), vector)
    assert not outside(jnp.eye(5), vector).any()  # and no rounding in its place
    assert jnp.isnan(outside(basis, vector * jnp.nan)).all()


class CountingTwice(methods.Counting):
    answers = 2

    def another(self, start, found):
        return start.replace(key=jax.random.fold_in(start.key, 1))


def test_memory_that_runs_out_repeats_no_answer(monkeypatch):
    images = np.random.default_rng(1).uniform(size=(6, 2, 2, 3)).astype(np.float32)
    jobs = [Job(i, image, float(i % 3 + 2)) for i, image in enumerate(images)]
    method = CountingTwice()
    events = Engine(method, {"generator": jnp.ones(()), "regressor": {}}, 1, seed=3).run(jobs)
    reference = {(e.job.id, e.answer): e.counterfactual for e in events if isinstance(e, Finished)}
    step, calls = programs.Programs.step, []

    def limited(self, states):
        calls.append(self.slots)
        if self.slots > 2 and len(calls) > 5:  # some second answers are on their way
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 byte")
        return step(self, states)

    monkeypatch.setattr(programs.Programs, "step", limited)
    events = Engine(method, {"generator": jnp.ones(()), "regressor": {}}, 4, seed=3).run(jobs)
    found = [event for event in events if isinstance(event, Finished)]
    assert max(calls) == 4 and calls[-1] == 2
    assert sorted((e.job.id, e.answer) for e in found) == sorted(reference)
    for event in found:
        expected = reference[event.job.id, event.answer].image
        np.testing.assert_array_equal(event.counterfactual.image, expected)
