"""Newton's solver of both methods, beside the paper's on the same networks."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffcf_jax.counterfactual.ac_re import ACRE, ACRENewton
from diffcf_jax.counterfactual.batching import Engine
from diffcf_jax.counterfactual.diffae_re import DiffAERE, DiffAERENewton
from diffcf_jax.counterfactual.events import Finished
from diffcf_jax.counterfactual.signed_steps import Reach, sized_update
from diffcf_jax.counterfactual.types import Query, Stop
from diffcf_jax.errors import UserError
from tests.counterfactual import methods

SOLVERS = {"ac-re": ACRENewton, "diffae-re": DiffAERENewton}


def newton(name, read=methods.regressor, **options):
    """The tiny method of that name with Newton's solver."""
    made = methods.METHODS[name]()
    fields = {field.name: getattr(made, field.name) for field in dataclasses.fields(made)}
    fields["options"] = dataclasses.replace(made.options, **options)
    return SOLVERS[name](**{**fields, "regressor": read})


def explain(method, jobs, batch_size=4):
    events = Engine(method, methods.variables(), batch_size, seed=0).run(jobs)
    done = [event for event in events if isinstance(event, Finished)]
    return {event.job.id: event.counterfactual for event in done}


@pytest.fixture(scope="module", params=SOLVERS)
def setting(request):
    """Name, jobs, and the results of Newton's solver and of the paper's."""
    name = request.param
    paper = methods.METHODS[name]()
    jobs = methods.make_jobs(paper, methods.variables())
    return name, jobs, explain(newton(name), jobs), explain(paper, jobs)


def test_it_needs_fewer_iterations_than_the_papers_solver(setting):
    name, jobs, found, paper = setting
    reached = [i for i in paper if paper[i].success]
    assert len(reached) >= 4 and all(found[i].success for i in reached)
    slide = newton(name).options.slide if name == "diffae-re" else 0
    needed = sum(int(found[i].iterations) - slide for i in reached)
    assert needed < sum(int(paper[i].iterations) for i in reached)
    for job in jobs:
        image = jnp.asarray(found[job.id].image)
        y = methods.regressor(methods.variables()["regressor"], image[None])[0]
        np.testing.assert_allclose(found[job.id].y_final, y, atol=1e-5)
        threshold = newton(name).options.threshold
        assert bool(found[job.id].success) == bool(abs(y - job.target) <= threshold)


def test_a_target_out_of_reach_keeps_the_best_image(setting):
    _, jobs, found, _ = setting
    result = found[3]
    assert not result.success and result.stop in (Stop.STALLED, Stop.ITERATIONS)
    assert result.y_final > result.y_initial
    assert np.isfinite(result.image).all()


def test_neither_batch_nor_order_matters(setting):
    name, jobs, found, _ = setting
    again = explain(newton(name), jobs[::-1], batch_size=1)
    for i, result in found.items():
        assert result.success == again[i].success and result.iterations == again[i].iterations
        np.testing.assert_allclose(result.curve, again[i].curve, atol=1e-3)
        np.testing.assert_allclose(result.image, again[i].image, atol=2.01 / 255)


@pytest.mark.parametrize("name", SOLVERS)
def test_the_first_step_serves_every_target(name):
    method, params, image = newton(name), methods.variables(), methods.make_image()
    step = jax.jit(method.step)
    state = jax.jit(method.init)(params, Query.of(image, 0.0), jax.random.key(0))
    near, far = (state.replace(query=Query.of(image, target)) for target in (-1.4, 7.0))
    read = [step(params, one).replace(query=state.query) for one in (near, far)]
    for a, b in zip(*map(jax.tree.leaves, read), strict=True):
        if not jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            np.testing.assert_array_equal(a, b)
    assert read[0].iteration == 0 and np.isnan(read[0].result.curve).all()
    # The next one uses what was read, and takes the second gradient.
    moved = step(params, read[0].replace(query=far.query))
    assert moved.iteration == 2 and np.isfinite(moved.result.curve[:2]).all()
    if name == "diffae-re":
        assert moved.result.curve[0] == read[0].result.y_reconstruction


def flat(v, images):
    return methods.regressor(v, jax.lax.stop_gradient(images))


def rounding(v, images):
    return jnp.round(methods.regressor(v, images) * 4) / 4


def broken(v, images):
    return methods.regressor(v, images) * jnp.nan


def steep(v, images):
    """Its gradient is not finite."""
    y = methods.regressor(v, images)
    return y + 0 * jnp.sqrt(0 * y)


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize(
    ("read", "stop"),
    [
        (flat, Stop.FLAT),
        (rounding, Stop.FLAT),
        (broken, Stop.PREDICTION),
        (steep, Stop.GRADIENT),
    ],
)
def test_what_gives_no_step_ends_with_a_reason(name, read, stop):
    method = newton(name, read)
    params, image = methods.variables(), methods.make_image()
    state, step = jax.jit(method.init)(params, Query.of(image, 7.0), jax.random.key(0)), method.step
    read = jax.jit(step)(params, state)  # what all targets share
    assert not read.stopped and read.result.iterations == 0
    state = method.finish(params, jax.jit(step)(params, read))
    assert state.done and not state.result.success
    assert state.result.stop == stop and state.result.iterations == 1
    if stop == Stop.FLAT:
        assert np.isfinite(state.result.image).all()


def latent_step(state, **options):
    method = newton("diffae-re", **options)
    step = jax.jit(method.step)
    states = [state]
    while not states[-1].stopped:
        states.append(step(methods.variables(), states[-1]))
    return states[1:]


@pytest.mark.parametrize("space", ["pixel", "latent"])
def test_a_slide_comes_nearer_without_leaving_the_target(space):
    method = newton("diffae-re")
    params = methods.variables()
    query = Query.of(methods.make_image(), 0.0)
    start = jax.jit(method.init)(params, query, jax.random.key(0))
    y = jax.jit(method.step)(params, start).result.y_reconstruction
    start = start.replace(query=Query.of(query.image, y + 0.1))

    def away(state):
        if space == "latent":
            return float(jnp.linalg.norm(state.z - state.z_0))
        return float(jnp.linalg.norm(state.result.image - state.query.image))

    met, *_ = [latent_step(start, slide=0, distance_space=space)[-1]]
    slid = latent_step(start, slide=6, distance_space=space)
    assert met.result.success and slid[-1].result.success
    assert slid[-1].result.iterations == met.result.iterations + 6
    if space == "latent":
        assert away(slid[-1]) <= away(met) + 1e-6
    else:
        # Half a grey value of every pixel is what the rounding hides.
        assert away(slid[-1]) <= away(met) + 0.5 / 255


def test_a_sized_step_changes_a_linear_prediction_by_what_is_missing():
    random = np.random.default_rng(0)
    weights = jnp.asarray(random.normal(size=(5, 5, 3)))
    x = jnp.asarray(random.uniform(0.3, 0.7, size=(5, 5, 3)))
    for floor in (0.0, 0.3):
        for miss in (0.02, -0.1):
            moved = sized_update(x, -2 * miss * weights, miss**2, 1.0, floor)
            np.testing.assert_allclose(jnp.vdot(weights, moved - x), 0.7 * miss, rtol=1e-4)
            stays = jnp.abs(weights) < floor * jnp.abs(weights).max()
            np.testing.assert_array_equal((moved == x), stays)
    bounded = sized_update(x, -2 * weights, 1.0, 0.01, 0.0)
    np.testing.assert_allclose(jnp.abs(bounded - x).max(), 0.01, rtol=1e-4)
    # What cannot move counts for nothing: the others go farther.
    edge = x.at[0].set(jnp.where(weights[0] > 0, 1.0, 0.0))
    moved = sized_update(edge, -0.04 * weights, 0.02**2, 1.0, 0.0)
    np.testing.assert_array_equal(moved[0], edge[0])
    np.testing.assert_allclose(jnp.vdot(weights, moved - edge), 0.7 * 0.02, rtol=1e-4)
    assert jnp.isfinite(sized_update(x, 0 * weights, 1.0, 1.0, 0.3)).all()


def test_steps_may_grow_while_the_linearisation_holds_and_start_anew_where_it_does_not():
    reach = Reach.start().after(jnp.asarray(5.0))
    first = float(reach.limit)
    for y, factor in ((6.0, 2), (7.4, 4), (7.9, 8), (8.3, 1), (9.9, 1), (9.5, 1), (10.5, 2)):
        reach = reach.replace(promised=jnp.asarray(1.0)).after(jnp.asarray(y))
        np.testing.assert_allclose(reach.limit, min(factor * first, 1), err_msg=str(y))
    for y in np.arange(11, 20):
        reach = reach.replace(promised=jnp.asarray(1.0)).after(jnp.asarray(float(y)))
    assert reach.limit == 1  # the whole range of a pixel
    assert reach.after(jnp.asarray(jnp.nan)).limit == np.float32(first)


def test_held_outputs_stay_and_only_newton_in_latent_space_holds_them():
    params = methods.variables()

    def other(v, images):  # what the free search changes along with the prediction
        return jnp.stack([images[..., 0].mean((1, 2)), (images[..., 1] ** 2).mean((1, 2))], 1)

    free = newton("diffae-re")
    jobs = methods.make_jobs(free, params)[1:3]

    def changes(method):
        found = explain(method, jobs)
        assert all(result.success for result in found.values())
        pair = [[found[job.id].reconstruction, found[job.id].image] for job in jobs]
        read = [np.asarray(other(None, jnp.asarray(np.stack(images)))) for images in pair]
        return np.abs([after - before for before, after in read]).max(0)

    held, before = changes(dataclasses.replace(free, held=other)), changes(free)
    assert (held < 0.1 * before).all(), (held, before)
    network = types.SimpleNamespace(kind="ddpm")
    with pytest.raises(UserError, match="ac-re cannot hold outputs: write report in place"):
        ACRE().bind(network, methods.regressor, other)
    with pytest.raises(UserError, match="solver='adam' cannot hold outputs: use newton"):
        DiffAERE(solver="adam").bind(network, methods.regressor, other)
