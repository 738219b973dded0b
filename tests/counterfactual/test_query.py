"""What a search can be asked for: ranges, extremes, masks; and what targets of an image share."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffcf_jax.counterfactual import programs
from diffcf_jax.counterfactual.batching import Engine
from diffcf_jax.counterfactual.events import Finished, Job
from diffcf_jax.counterfactual.types import Query, Stop, quantize
from diffcf_jax.target import Range
from tests.counterfactual import methods
from tests.counterfactual.test_newton import newton

SOLVERS = {
    "ac-re pgd": methods.ac_re,
    "diffae-re adam": methods.diffae_re,
    "ac-re newton": lambda: newton("ac-re"),
    "diffae-re newton": lambda: newton("diffae-re"),
    "hybrid": methods.hybrid,
}
LEFT = np.zeros((methods.SIZE, methods.SIZE), bool)
LEFT[:, :7] = True


ENGINES = {}  # by their method: they keep their programs


def explain(method, jobs):
    if id(method) not in ENGINES:
        ENGINES[id(method)] = method, Engine(method, methods.variables(), 3, seed=7)
    events = ENGINES[id(method)][1].run(iter(jobs))
    found = [event for event in events if isinstance(event, Finished)]
    return {event.job.id: event.counterfactual for event in found}


def read(image):
    regressor = methods.variables()["regressor"]
    return float(methods.regressor(regressor, jnp.asarray(image)[None])[0])


@pytest.fixture(scope="module", params=SOLVERS)
def setting(request):
    """A method, its jobs of three images, and their results."""
    method = SOLVERS[request.param]()
    paper = methods.METHODS.get(request.param.split()[0], methods.diffae_re)()
    near = methods.make_jobs(paper, methods.variables(), 3)
    x, y = near[0].image, near[0].target
    here = read(x)
    above, below = max(y, here), min(y, here)  # of the input and its reconstruction
    jobs = [
        Job(0, x, Range(here - 0.2, here + 0.01)),
        Job(1, x, Range(above + 0.03, above + 0.09)),
        Job(2, x, "max"),
        Job(3, x, "min"),
        Job(4, x, y + 0.03, None, LEFT),
        Job(5, x, Range(below - 0.06, below - 0.02), None, ~LEFT),
        Job(6, near[1].image, near[1].target, None, LEFT),
    ]
    return method, jobs, explain(method, jobs)


def test_an_image_inside_of_its_range_stays(setting):
    _, jobs, found = setting
    result = found[0]
    assert result.success and result.stop == Stop.TARGET and result.iterations == 0
    np.testing.assert_array_equal(result.image, quantize(jnp.asarray(jobs[0].image)))
    assert np.isnan(result.curve).all()


def test_any_prediction_inside_of_a_range_counts(setting):
    _, jobs, found = setting
    for i in (1, 5):
        result, target = found[i], jobs[i].target
        assert result.success and result.stop == Stop.TARGET and result.iterations >= 1
        assert target.low <= read(result.image) <= target.high
        assert target.low <= result.y_final <= target.high  # and no threshold beside it


def test_an_extreme_goes_on_as_long_as_it_pays(setting):
    method, _, found = setting
    highest, lowest = found[2], found[3]
    assert lowest.y_final < lowest.y_initial < highest.y_initial + 1e-6 < highest.y_final
    for result, other in ((highest, found[1]), (lowest, found[5])):
        assert not result.success and result.stop in (Stop.STALLED, Stop.ITERATIONS)
        assert result.iterations <= method.iterations and np.isfinite(result.image).all()
        np.testing.assert_allclose(read(result.image), result.y_final, atol=1e-5)
        assert abs(result.y_final - result.y_initial) > abs(other.y_final - other.y_initial)
    if hasattr(method, "optimizer"):  # AC-RE's curve is of images that are not refined
        np.testing.assert_allclose(highest.y_final, np.nanmax(highest.curve), atol=1e-4)
        np.testing.assert_allclose(lowest.y_final, np.nanmin(lowest.curve), atol=1e-4)


@pytest.mark.parametrize(("i", "mask"), [(4, LEFT), (5, ~LEFT), (6, LEFT)])
def test_outside_of_its_mask_not_one_bit_of_an_image_changes(setting, i, mask):
    _, jobs, found = setting
    start = np.asarray(quantize(jnp.asarray(jobs[i].image)))
    np.testing.assert_array_equal(found[i].image[~mask], start[~mask])
    assert (found[i].mask[~mask] == 1).all()
    if i < 6:
        assert found[i].success and (found[i].image[mask] != start[mask]).any()


def test_the_gradient_is_that_of_what_may_change(setting):
    method, jobs, _ = setting
    params, job = methods.variables(), jobs[4]
    query = Query.of(jnp.asarray(job.image), job.target, jnp.asarray(LEFT[..., None], "f4"))
    state = jax.jit(method.init)(params, query, jax.random.key(0))
    step = jax.jit(method.step)
    moved = step(params, step(params, state))
    if hasattr(state, "x_adv"):
        outside = ~np.broadcast_to(LEFT[..., None], state.x_adv.shape)
        np.testing.assert_array_equal(moved.x_adv[outside], query.image[outside])
    else:
        shown = np.asarray(moved.result.reconstruction)
        np.testing.assert_array_equal(shown[~LEFT], np.asarray(quantize(query.image))[~LEFT])


def test_a_point_accepts_what_its_threshold_says():
    query = Query.of(jnp.zeros((2, 2, 3)), 0.3)
    threshold = 0.05
    for y in np.float32([0.25, 0.35, 0.3, 0.2499, 0.36, np.nan, np.inf]):
        expected = abs(y - np.float32(0.3)) <= np.float32(threshold)
        assert bool(query.met(jnp.asarray(y), threshold)) == bool(expected)
        np.testing.assert_array_equal(query.miss(y), np.float32(0.3) - y)


def test_targets_of_one_image_share_its_start(setting, monkeypatch):
    method, jobs, _ = setting
    images = methods.make_jobs(methods.diffae_re(), methods.variables(), 3)
    jobs = [
        Job(10 * i + k, job.image, job.target + shift, None, mask)
        for i, job in enumerate(images)
        for k, (shift, mask) in enumerate([(0.02, None), (0.06, None), (-0.04, None), (0.1, LEFT)])
    ]
    batches, init = [], programs.Programs.init

    def counted(self, jobs, seed):
        batches.append(len(jobs))
        return init(self, jobs, seed)

    monkeypatch.setattr(programs.Programs, "init", counted)
    shared = explain(method, jobs)
    # Three slots: one image with both of its masks and the next one, and so on.
    assert batches == [7, 5]
    monkeypatch.setattr(Job, "content", lambda self: str(self.id).encode())
    alone = explain(method, jobs)
    assert batches[2:] == [3, 3, 3, 3]
    for i, result in shared.items():
        for a, b in zip(jax.tree.leaves(result), jax.tree.leaves(alone[i]), strict=True):
            np.testing.assert_array_equal(a, b)
