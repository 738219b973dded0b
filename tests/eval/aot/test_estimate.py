"""The estimate for TPUs follows from counts; wrong topologies are reported in one sentence."""

import importlib.util

import pytest

from diffcf_jax.chips import Chip
from diffcf_jax.errors import UserError
from eval.aot import compile as aot
from eval.aot.estimate import SHARE_OF_BANDWIDTH, SHARE_OF_PEAK
from eval.aot.estimate import estimate as estimate_

CHIP = Chip(flops=100e12, bandwidth=1e12, memory=16 * 2**30)


def estimate(**changes):
    arguments = dict(
        topology="v5e:2x4", chip=CHIP, chips=8, slots=2, params_bytes=2**30,
        program_bytes=3 * 2**30, moved_bytes=2e9, flops=(2e12, 4e12, 2e12), iterations=10,
    )  # fmt: skip
    return estimate_(**(arguments | changes))


def test_memory():
    found = estimate()
    assert found.slot_bytes == 2**30  # (3 - 1) GiB for two slots
    assert found.fitting_slots == 13  # 0.9 * 16 - 1 = 13.4
    none = estimate(program_bytes=60 * 2**30)
    assert none.fitting_slots == 0 and none.images_per_hour == 0


def test_time_is_that_of_the_slower_side():
    rate = SHARE_OF_PEAK * 100e12
    found = estimate()
    assert found.compute_bound
    assert found.seconds == pytest.approx(13 * 4e12 / rate)
    assert found.image_flops == 2e12 + 10 * 4e12 + 2e12
    assert found.images_per_hour == pytest.approx(8 * 3600 / (44e12 / rate))

    found = estimate(moved_bytes=2e12)
    assert not found.compute_bound
    assert found.seconds == pytest.approx(13 * 1e12 / (SHARE_OF_BANDWIDTH * 1e12))
    assert estimate(passes=6).seconds == pytest.approx(6 * 13 * 4e12 / rate)


def test_the_table_names_its_assumptions():
    text = str(estimate())
    assert "v5e:2x4, 8 chips" in text
    assert "40% of the peak" in text and "70% of the memory bandwidth" in text


def test_unknown_topologies():
    with pytest.raises(UserError, match="Unknown TPU generation in the topology 'h100:8'"):
        aot.compile_only(None, {}, (8, 8, 3), 1, "h100:8")
    if importlib.util.find_spec("libtpu") is None:
        with pytest.raises(UserError, match=r"pip install 'diffcf_jax\[tpu-aot\]'"):
            aot.compile_only(None, {}, (8, 8, 3), 1, "v5e:2x4")


@pytest.mark.skipif(not importlib.util.find_spec("libtpu"), reason="needs the extra tpu-aot")
def test_topologies_of_libtpu():
    assert len(aot.topology_devices("v5e:2x4")) == 8
    with pytest.raises(UserError, match="libtpu knows no topology 'v5e:7x9'"):
        aot.topology_devices("v5e:7x9")
