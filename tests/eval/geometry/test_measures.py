import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eval.geometry.jacobian import spectrum
from eval.geometry.measures import PATH, cycle, lengths, nearest, tangent_shares

N, D = 60, 4
RANDOM = np.random.default_rng(0)
# Columns of very different length, so that the two metrics differ.
MATRIX = RANDOM.normal(size=(N, D)) * np.asarray([4.0, 2, 1, 0.2])
WEIGHTS = RANDOM.normal(size=N)  # the regressor f(x) = w . x
G = MATRIX.T @ WEIGHTS


def generate(matrix, z):
    return matrix @ z


@pytest.fixture(scope="module")
def linear():
    return spectrum(generate, jnp.asarray(MATRIX, jnp.float32), jnp.ones(D), D, jax.random.key(0))


def test_the_tangent_space_holds_what_the_columns_span(linear):
    inside = MATRIX @ RANDOM.normal(size=D)
    assert tangent_shares(linear, inside)[-1] == pytest.approx(1, abs=1e-6)
    outside = WEIGHTS - MATRIX @ np.linalg.lstsq(MATRIX, WEIGHTS, rcond=None)[0]
    assert tangent_shares(linear, outside)[-1] == pytest.approx(0, abs=1e-5)
    both = inside / np.linalg.norm(inside) + outside / np.linalg.norm(outside)
    assert tangent_shares(linear, both)[-1] == pytest.approx(np.sqrt(0.5), abs=1e-5)
    random = [tangent_shares(linear, x)[-1] ** 2 for x in RANDOM.normal(size=(300, N))]
    assert np.mean(random) == pytest.approx(D / N, rel=0.15)
    assert (np.diff(tangent_shares(linear, WEIGHTS)) >= 0).all()


@pytest.mark.parametrize("sign", [1, -1])
def test_the_nearest_point_of_each_metric_has_the_angle_0(linear, sign):
    in_pixels = np.linalg.solve(MATRIX.T @ MATRIX, G)  # minimises |J dz| on the level set
    found = nearest(linear, sign * in_pixels, WEIGHTS, sign * 1.0)
    assert found.pulled_back == pytest.approx(0, abs=0.05) and found.plain > 20
    found = nearest(linear, sign * G, WEIGHTS, sign * 1.0)  # minimises |dz|
    assert found.plain == pytest.approx(0, abs=0.05) and found.pulled_back > 20
    assert found.of_gradient == pytest.approx(found.pulled_back, abs=1e-6)
    along = RANDOM.normal(size=D)
    along -= (along @ G) / (G @ G) * G  # changes f by nothing
    assert nearest(linear, along, WEIGHTS, 0.0).plain == pytest.approx(90, abs=0.05)
    assert nearest(linear, along, WEIGHTS, 0.0).pulled_back == pytest.approx(90, abs=0.05)


def test_lengths(linear):
    step = np.linalg.solve(MATRIX.T @ MATRIX, G)
    images = [MATRIX @ (share * step) for share in PATH]
    rise = G @ step
    found = lengths(images, linear, WEIGHTS, rise)
    assert found.straight == pytest.approx(np.linalg.norm(MATRIX @ step) / np.sqrt(N))
    assert found.path == pytest.approx(found.straight)
    assert found.shortest == pytest.approx(found.straight, rel=1e-5)
    longer = lengths([MATRIX @ (share * G) for share in PATH], linear, WEIGHTS, G @ G)
    assert longer.straight > 1.2 * longer.shortest  # the plain gradient's step is not the nearest
    share = tangent_shares(linear, WEIGHTS)[-1]
    assert found.pixels == pytest.approx(share * found.shortest, rel=1e-6)
    detour = lengths([images[0], MATRIX @ np.ones(D), images[-1]], linear, WEIGHTS, rise)
    assert detour.path > detour.straight == pytest.approx(found.straight)


def test_encoding_again():
    inverse = jnp.asarray(np.linalg.pinv(MATRIX), jnp.float32)
    matrix = jnp.asarray(MATRIX, jnp.float32)
    start, change = jnp.ones(D), jnp.asarray([1.0, -1, 0, 2])
    codes = [start + share * change for share in PATH]
    found = cycle(lambda x: inverse @ x, lambda z: matrix @ z, codes)
    np.testing.assert_allclose(found.code + found.image, 0, atol=1e-4)
    assert found.followed == pytest.approx(1, abs=1e-4)
    # An encoder that sees half of every code misses half of it.
    found = cycle(lambda x: inverse @ x / 2, lambda z: matrix @ z, codes)
    assert found.followed == pytest.approx(0.5, abs=1e-4)
    size = np.linalg.norm(change)
    assert found.code[0] == pytest.approx(np.linalg.norm(start) / 2 / size, rel=1e-4)
    assert found.code[-1] == pytest.approx(np.linalg.norm(codes[-1]) / 2 / size, rel=1e-4)
