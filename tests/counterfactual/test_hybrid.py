"""The hybrid on a generator that paints patterns, whose smallest region is known."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from diffcf_jax.checkpoint.network import Network, build_module
from diffcf_jax.counterfactual.batching import Engine
from diffcf_jax.counterfactual.diffae_re import DiffAERE, DiffAERENewton
from diffcf_jax.counterfactual.events import Finished, Job
from diffcf_jax.counterfactual.hybrid import Hybrid, HybridMethod
from diffcf_jax.counterfactual.methods import bind_method
from diffcf_jax.counterfactual.types import Query, Stop, quantize
from diffcf_jax.diffusion.schedule import make_diffusion
from diffcf_jax.errors import UserError
from diffcf_jax.explainer import Explainer
from tests import tiny

SIZE = 12
PATCH = np.zeros((SIZE, SIZE), bool)
PATCH[3:7, 4:8] = True
RING = np.zeros_like(PATCH)
RING[2:8, 3:9] = True
RING &= ~PATCH
PAINT = 0.25  # what the DDPM makes of everything
# The first pattern is the patch, with a little of everything else; the second fades out around it.
FADE = np.exp(-np.arange(SIZE) / 3)[:, None] * ~PATCH
BASIS = np.stack([np.where(PATCH, 1.0, 0.1), FADE])
PARAMS = {
    "generator": jnp.asarray(BASIS[..., None] * np.ones(3), jnp.float32),
    "refiner": jnp.float32(2 * PAINT - 1),
    "regressor": jnp.asarray(PATCH / PATCH.sum(), jnp.float32),
}
NOISE = jnp.asarray(np.cumprod(1 - make_diffusion(100).betas), jnp.float32)


def encode(basis, x):
    return 0.001 * jnp.einsum("bhwc,dhwc->bd", x, basis) + jnp.array([0.5, 0.1])


def noise_of(x_t, t, x_0):
    a = NOISE[t][:, None, None, None]
    return (x_t - jnp.sqrt(a) * x_0) / jnp.sqrt(1 - a)


def predict(basis, x_t, t, z):
    return noise_of(x_t, t, 0.9 * jnp.tanh(jnp.einsum("bd,dhwc->bhwc", z, basis)))


def denoise(paint, x_t, t):
    eps = noise_of(x_t, t, paint)
    return jnp.concatenate([eps, jnp.zeros_like(eps)], -1)


def read(weights, images):
    return jnp.einsum("bhw,hw->b", images[..., 0], weights)


def make(regressor=read, **options):
    options = Hybrid(**{"tau": 2, "threshold": 0.02, "iterations": 60, **options})
    shared = {
        field.name: getattr(options, field.name)
        for field in dataclasses.fields(DiffAERE)
        if hasattr(options, field.name)
    }
    search = DiffAERENewton(
        options=DiffAERE(**shared),
        encode=encode,
        predict=predict,
        inversion=make_diffusion(steps=100, respacing="ddim5"),
        decoding=make_diffusion(steps=100, respacing="ddim2"),
        regressor=regressor,
        optimizer=optax.identity(),
    )
    return HybridMethod(options, search, make_diffusion(steps=100, respacing="20"), denoise)


IMAGES = np.random.default_rng(0).uniform(0.3, 0.7, (5, SIZE, SIZE, 3)).astype(np.float32)
WEIGHTS = {"patch": PATCH / PATCH.sum(), "with ring": (PATCH | RING) / (PATCH | RING).sum()}


def explain(method, jobs, batch_size=4, **params):
    events = Engine(method, {**PARAMS, **params}, batch_size, seed=0).run(iter(jobs))
    found = [event for event in events if isinstance(event, Finished)]
    return {event.job.id: event.counterfactual for event in found}


@pytest.fixture(scope="module")
def found():
    """The same targets, read in the patch alone and in its ring, too."""
    method = make()
    jobs = [Job(i, image, 0.75 + 0.02 * i) for i, image in enumerate(IMAGES)]
    return (
        method,
        jobs,
        {
            name: explain(method, jobs, regressor=jnp.asarray(weights, jnp.float32))
            for name, weights in WEIGHTS.items()
        },
    )


@pytest.mark.parametrize("name", WEIGHTS)
def test_only_the_smallest_region_and_its_border_change(found, name):
    _, jobs, results = found
    for job in jobs:
        result = results[name][job.id]
        start = np.asarray(quantize(jnp.asarray(job.image)))
        assert result.success and result.stop == Stop.TARGET
        np.testing.assert_allclose(result.image * 255, np.round(result.image * 255), atol=1e-4)
        y = read(jnp.asarray(WEIGHTS[name]), jnp.asarray(result.image)[None])[0]
        assert abs(y - job.target) <= 0.02
        np.testing.assert_allclose(result.y_final, y, atol=1e-6)
        changed = result.mask[..., 0] == 0
        np.testing.assert_array_equal(result.image[~changed], start[~changed])
        assert result.iterations < 20 and np.isfinite(result.curve[: result.iterations]).all()
        if name == "patch":
            np.testing.assert_array_equal(changed, PATCH | RING)
            # The DDPM has painted the ring, and nothing within.
            np.testing.assert_allclose(result.image[RING], PAINT, atol=0.5 / 255)
            assert len(np.unique(result.image[PATCH])) == 1 and result.image[PATCH].min() > 0.7


def test_the_search_makes_up_for_what_blending_changes(found):
    """The paint lowers what the regressor reads in the ring: the patch is the brighter for it."""
    _, jobs, results = found
    for job in jobs:
        result = results["with ring"][job.id]
        assert result.image[RING].min() < 0.5 < job.target < result.image[PATCH].mean() - 0.05


def test_neither_batch_nor_order_matters(found):
    method, jobs, results = found
    again = explain(method, jobs[::-1], batch_size=1)
    for i, result in results["patch"].items():
        assert result.iterations == again[i].iterations
        np.testing.assert_array_equal(result.mask, again[i].mask)
        np.testing.assert_allclose(result.image, again[i].image, atol=1.01 / 255)
        np.testing.assert_allclose(result.curve, again[i].curve, atol=0.5 / 255)


def test_the_region_is_the_smallest_that_carries_its_share():
    """Where the regressor reads everything alike, the share of the change is that of its pixels."""
    params = {**PARAMS, "regressor": jnp.full((SIZE, SIZE), 1 / SIZE**2)}
    image = quantize(jnp.full((SIZE, SIZE, 3), 0.2))
    change = np.random.default_rng(1).permutation(SIZE**2).reshape(SIZE, SIZE, 1)  # all different
    changed = image + jnp.asarray(change, image.dtype) / 255
    method = make(border=1)
    state = jax.jit(method.init)(params, Query.of(image, 0.5), jax.random.key(0))
    result = state.result.replace(
        image=changed, y_final=changed.mean(), success=True, reconstruction=image
    )
    state = state.replace(search=state.search.replace(result=result), stopped=True)
    areas = []
    for share in (0.5, 0.95):
        located = jax.jit(make(border=1, share=share).finish)(params, state)
        region = np.asarray(located.result.mask == 0)
        areas.append(region.sum())
        carried = change[region].sum() / change.sum()
        # The next larger level carries too little; a level is found to a 256th.
        assert share <= carried < share + 2 * change.max() / change.sum()
        assert change[region].min() > change[~region].max()
        assert not located.stopped and not located.done  # the search goes on in the region
    assert areas[0] < areas[1] < SIZE**2


def test_a_target_out_of_reach_keeps_the_best_image(found):
    method, jobs, _ = found
    result = explain(method, [Job(0, IMAGES[0], 3.0), Job(1, IMAGES[1], "max")])
    for one in result.values():
        # A pattern that is saturated has no gradient.
        assert not one.success and one.stop in (Stop.STALLED, Stop.ITERATIONS, Stop.FLAT)
        assert one.y_final > 0.9 and np.isfinite(one.image).all()


@pytest.mark.parametrize(
    ("damage", "stop"),
    [
        (jax.lax.stop_gradient, Stop.FLAT),
        (lambda y: jnp.round(4 * y) / 4, Stop.FLAT),
        (lambda y: y * jnp.nan, Stop.PREDICTION),
        (lambda y: y + 0 * jnp.sqrt(0 * y), Stop.GRADIENT),
    ],
)
def test_what_gives_no_step_ends_with_a_reason(damage, stop):
    method = make(lambda v, images: damage(read(v, images)))
    init, step, finish = map(jax.jit, (method.init, method.step, method.finish))
    start = init(PARAMS, Query.of(IMAGES[0], 7.0), jax.random.PRNGKey(0))
    start = step(PARAMS, start)  # reads the reconstruction
    moved = step(PARAMS, start)
    state = finish(PARAMS, moved)
    assert state.done and not state.result.success
    assert state.result.stop == stop and state.result.iterations == 1
    assert np.isfinite(state.result.y_final) == (stop != Stop.PREDICTION)
    assert np.isfinite(state.result.image).all()
    # What has stopped passes through a step unchanged, and what has not through `finish`.
    for function, one in ((step, start), (finish, moved)):
        one = one.replace(stopped=jnp.array(function is step))
        jax.tree.map(np.testing.assert_array_equal, function(PARAMS, one), one)


def network(description, **changes):
    description = {**description, **changes}
    return Network(description, build_module(description), {})


@pytest.mark.parametrize(
    ("method", "generator", "refiner", "message"),
    [
        (
            Hybrid(),
            tiny.DIFFAE,
            None,
            "hybrid needs a second generator, a ddpm: give its",
        ),
        (Hybrid(), tiny.DDPM, tiny.DDPM, "hybrid needs a generator of kind diffae, but this one"),
        (Hybrid(), tiny.DIFFAE, tiny.DIFFAE, "hybrid needs a refiner of kind ddpm, but this one"),
        (Hybrid(tau=51), tiny.DIFFAE, tiny.DDPM, "tau=51 must lie between 1 and 50 respaced steps"),
        (Hybrid(), tiny.DIFFAE, {**tiny.DDPM, "image_size": 32}, "of 64 pixels and the refiner of"),
        (DiffAERE(), tiny.DIFFAE, tiny.DDPM, "diffae-re takes no refiner: leave it out"),
    ],
)
def test_networks_that_do_not_fit_are_refused(method, generator, refiner, message):
    second = refiner and network(refiner)
    with pytest.raises(UserError, match=message):
        bind_method(method, network(generator), read, second)


def test_a_refiner_that_is_no_network_is_refused():
    with pytest.raises(UserError, match="refiner is of type str; it must be a network"):
        Explainer(network(tiny.DIFFAE), lambda x: x[..., 0].mean((1, 2)), Hybrid(), refiner="ddpm")
