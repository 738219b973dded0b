import numpy as np
import pytest

import diffcf_jax
from diffcf_jax.checkpoint.store import load_network
from diffcf_jax.errors import UserError
from tests import tiny


def mean_red(images):
    return images[..., 0].mean((1, 2))


@pytest.fixture(scope="module")
def generator(tmp_path_factory):
    return load_network(tiny.save(tmp_path_factory.mktemp("ddpm") / "network", tiny.DDPM))


OPTIONS = {"iterations": 15, "step_size": 0.02, "tau": 2, "threshold": 0.02}


def test_any_function_is_a_regressor(generator):
    images = np.random.default_rng(0).uniform(0.2, 0.6, (3, 64, 64, 3)).astype(np.float32)
    results = diffcf_jax.explain(
        images, [0.4, 0.5, 0.3], generator=generator, regressor=mean_red, batch_size=2, **OPTIONS
    )
    assert results.image.shape == images.shape and results.success.all()
    np.testing.assert_allclose(results.y_final, [0.4, 0.5, 0.3], atol=0.02)
    np.testing.assert_allclose(results.y_initial, mean_red(images), atol=1e-5)
    np.testing.assert_allclose(mean_red(results.image), results.y_final, atol=1e-5)


def test_a_network_is_a_regressor(generator, tmp_path):
    regressor = load_network(tiny.save(tmp_path / "regressor", tiny.REGRESSOR))
    images = np.full((1, 64, 64, 3), 0.5, np.float32)
    y = float(regressor.module.apply(regressor.variables, images)[0])
    results = diffcf_jax.explain(images, y, generator=generator, regressor=regressor, **OPTIONS)
    assert results.success.all() and results.y_final[0] == pytest.approx(y, abs=0.02)


def test_wrong_arguments(generator):
    image = np.full((1, 64, 64, 3), 0.5, np.float32)
    for images, target, regressor, message in (
        (image[0], 0.5, mean_red, r"needs \[B, 64, 64, 3\]"),
        (image[:, :32], 0.5, mean_red, r"needs \[B, 64, 64, 3\]"),
        (image * 255, 0.5, mean_red, "divide uint8 images by 255"),
        (image * np.nan, 0.5, mean_red, "floats in"),
        (image, np.nan, mean_red, "target holds a value that is not finite"),
        (image, [0.2, 0.5], mean_red, "one number, or one for each of 1 images"),
        (image, 0.5, lambda x: x.mean(), "one number for each"),
        (image, 0.5, lambda x: x.mean((1, 2)), "one number for each"),
    ):
        with pytest.raises(UserError, match=message):
            diffcf_jax.explain(images, target, generator=generator, regressor=regressor)
    for arguments, message in (
        ({"batch_size": 0}, "batch_size=0 must be a whole number of at least 1, or auto"),
        ({"batch_size": 2.5}, r"batch_size=2\.5 must be a whole number"),
        ({"seed": -1}, "seed=-1 must be a whole number between 0 and"),
    ):
        with pytest.raises(UserError, match=message):
            diffcf_jax.explain(image, 0.5, generator=generator, regressor=mean_red, **arguments)
