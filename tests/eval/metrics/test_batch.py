"""Programs of networks in batches, on one device and on eight."""

import os
import subprocess
import sys

import jax
import numpy as np

from diffcf_jax.regressors.readings import Reader
from diffcf_jax.units import Unit
from eval.metrics.attack import attacked
from eval.metrics.batch import BATCH_SIZE, Batch, in_batches, remembering
from eval.metrics.images import distances
from eval.metrics.regressor import Judge
from eval.metrics.weights import load_networks
from tests import seeded, tiny

NETWORKS = {
    "simsiam": {"kind": "simsiam", "model": {"width": 4, "blocks": [1]}, "image_size": 224},
    "lpips": {"kind": "lpips", "model": {"backbone": "alex", "width": 4}, "image_size": 224},
}
COUNT = 21  # no multiple of the devices


def measured(folder):
    """What networks, distances, a regressor and its attack make of 21 images."""
    x, y = seeded.images(2, COUNT, 32, 32, 3) / np.float32(255)
    networks = load_networks(folder)
    judge = Judge(Reader("mean", lambda v, x: (v * x).mean((1, 2, 3)), np.float32(2), Unit()))
    rows = [{"target": 0.5 + i / 20, "answer": 1} for i in range(COUNT)]
    (control,) = attacked([Batch(rows, x, y, None)], judge, 0.01, 9)
    return {
        "simsiam": networks.features["simsiam"](x),
        "lpips": networks.distances["lpips"](x, y),
        "readings": judge(y),
        "control": control.images,
        **distances()(Batch(rows, x, y, None), None),
    }


_EIGHT_DEVICES = """
import sys
import re, jax, numpy as np
from diffcf_jax import parallel
from diffcf_jax.checkpoint.store import load_network
from eval.metrics.batch import in_batches
from tests.eval.metrics.test_batch import measured

assert jax.local_device_count() == 8
shapes = []
def apply(variables, x):
    jax.debug.inspect_array_sharding(x, callback=lambda s: shapes.append(s.shard_shape(x.shape)))
    return variables * x
in_batches(apply, np.float32(2), 3)(np.ones((21, 5), np.float32))
assert shapes == [(3, 5)], shapes

# Nor does a device wait for another where both images of a pair pass through one network.
network, mesh = load_network(sys.argv[1] + "/lpips"), parallel.data_mesh()
pair = parallel.shard_batch(list(np.ones((2, 16, 32, 32, 3), np.float32)), mesh)
variables = parallel.replicate(network.variables, mesh)
program = jax.jit(network.module.apply, out_shardings=parallel.batch_sharding(mesh))
text = program.lower(variables, *pair).compile().as_text()
found = re.findall(r"\\b(?:all-|collective-|reduce-scatter|ragged-all)[-a-z]*", text)
assert not found and len(text) > 1000, found
np.savez(sys.argv[2], **measured(sys.argv[1]))
"""


def test_results_do_not_depend_on_the_number_of_devices(tmp_path):
    for name, description in NETWORKS.items():
        tiny.save(tmp_path / name, description)
    path = tmp_path / "eight.npz"
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": "8"}
    done = subprocess.run(
        [sys.executable, "-c", _EIGHT_DEVICES, str(tmp_path), str(path)],
        env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    one, eight = measured(tmp_path), np.load(path)
    assert one.keys() == set(eight)
    for name, expected in one.items():
        np.testing.assert_allclose(eight[name], expected, rtol=1e-5, atol=1e-6, err_msg=name)


def test_any_number_of_images_is_one_program():
    traced = []

    def apply(variables, x, y):
        traced.append(x.shape)
        return {"sum": variables + x + y, "difference": x - y}

    call = in_batches(apply, np.float32(1), 4)
    for count in (1, 4, 11):
        x, y = np.random.default_rng(0).random((2, count, 3), np.float32)
        found = call(x, y)
        np.testing.assert_allclose(found["sum"], 1 + x + y, rtol=1e-6)
        np.testing.assert_allclose(found["difference"], x - y, rtol=1e-6)
    assert traced == [(4 * jax.local_device_count(), 3)]
    assert in_batches(lambda _, x: x, {})(np.zeros((BATCH_SIZE + 1, 2))).shape == (65, 2)


def test_an_image_is_computed_once():
    asked = []

    def look(images):
        asked.append(len(images))
        return images.sum(1)

    recall = remembering(look)
    images = np.random.default_rng(0).random((3, 2, 2))
    twice = images[[0, 1, 0, 2, 2]]
    np.testing.assert_array_equal(recall(twice), twice.sum(1))
    np.testing.assert_array_equal(recall(images[::-1]), images[::-1].sum(1))
    assert asked == [3]
    # The same bytes in another shape are another image.
    other = recall(images.reshape(3, 1, 4))
    np.testing.assert_array_equal(other, images.reshape(3, 4))
    assert asked == [3, 3]
