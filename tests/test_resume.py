"""Runs of explain.py that are killed or told to stop, in one process or in two, and go on."""

import json
import random
import signal
import time

import numpy as np
import pytest

from diffcf_jax.files import read_image
from diffcf_jax.results.log import key_of, read_results
from tests import explaining
from tests.pairs import two_environments


@pytest.fixture(scope="module", autouse=True)
def compiled_once():
    with explaining.compiled_once():
        yield


@pytest.fixture(scope="module", params=["acre"])
def flags(request, tmp_path_factory):
    return explaining.save_networks(tmp_path_factory.mktemp("networks"), request.param)


both_methods = pytest.mark.parametrize("flags", ["acre", "diffae"], indirect=True)
with_diffae = pytest.mark.parametrize("flags", ["diffae"], indirect=True)


@pytest.fixture(scope="module")
def uninterrupted(flags, tmp_path_factory):
    out = tmp_path_factory.mktemp("uninterrupted")
    explaining.explain(out, *flags)
    return out


def wait_for_lines(out, count, process):
    """Waits until results.jsonl holds `count` lines."""
    path = out / "results.jsonl"
    while process.poll() is None:
        if path.exists() and path.read_bytes().count(b"\n") >= count:
            return
        time.sleep(0.002)


def assert_equal_results(out, reference):
    rows = {key_of(row): row for row in read_results(out)}
    expected = {key_of(row): row for row in read_results(reference)}
    assert rows.keys() == expected.keys()
    assert len(read_results(out)) == len(rows)
    for key, row in rows.items():
        for name in ("id", "success", "iterations", "cf", "reason"):
            assert row[name] == expected[key][name]
        assert row["y_final"] == pytest.approx(expected[key]["y_final"], abs=1e-5)
        image, other = (read_image(folder / row["cf"]).astype(int) for folder in (out, reference))
        assert np.abs(image - other).max() <= 1 and np.mean(image != other) < 1e-3


@both_methods
def test_kills_lose_and_repeat_nothing(flags, uninterrupted, tmp_path):
    out, finished, ended = tmp_path / "out", {}, []
    for number, lines in ((signal.SIGKILL, 0), (signal.SIGTERM, 1), (signal.SIGKILL, 5)):
        process = explaining.start(out, *flags)
        wait_for_lines(out, lines, process)
        time.sleep(random.uniform(0, 0.05))
        process.send_signal(number)
        _, stderr = process.communicate()
        ended.append(process.returncode)
        if process.returncode == 75:
            assert stderr.splitlines()[-1].endswith("run the same command again.")
        if number == signal.SIGTERM:
            assert process.returncode in (0, 75) and "Traceback" not in stderr
        rows = read_results(out) if (out / "results.jsonl").exists() else []
        now = {key_of(row): (row, (out / row["cf"]).stat().st_mtime_ns) for row in rows}
        assert finished.items() <= now.items()  # what was finished is not computed again
        finished = now
    assert -signal.SIGKILL in ended  # at least once it was in time
    explaining.explain(out, *flags)
    assert_equal_results(out, uninterrupted)
    assert all(
        finished[key][0] == row for row in read_results(out) if (key := key_of(row)) in finished
    )


def start_two(out, *arguments, second=()):
    """Two processes; `second` are further arguments of process 1 alone."""
    return [
        explaining.start(out, *arguments, *own, **found, JAX_NUM_CPU_DEVICES="2")
        for own, found in zip(((), second), two_environments(), strict=True)
    ]


def test_two_processes_share_the_work(flags, uninterrupted, tmp_path):
    out = tmp_path / "out"
    processes = start_two(out, *flags)
    told = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], told
    assert "The report is" in told[0][0] and "The report is" not in told[1][0]
    assert_equal_results(out, uninterrupted)
    assert not list(out.glob("results.*.jsonl"))
    engine = json.loads((out / "summary.json").read_text())["engine"]
    assert (engine["processes"], engine["images"], engine["slots"]) == (2, 12, 8)


def test_a_process_that_ends_early_takes_the_other_with_it(flags, tmp_path):
    out = tmp_path / "out"
    processes = start_two(out, *flags, "--config.data.limit=200")
    wait_for_lines(out, 1, processes[0])
    processes[1].send_signal(signal.SIGTERM)
    told = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [75, 75], told
    assert "Another process of this run has ended" in told[0]
    assert 0 < len(read_results(out)) < 200

    processes = start_two(out, *flags, "--config.seed=1")
    told = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [2, 2], told
    assert "error: Process 0 of this run has ended" in told[1]
    for text in told:
        assert "holds results of another config: seed (0 there, 1 here)" in text


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ("--config.seed=1", "have different configs: seed (0 there, 1 here)"),
        ("--config.data.limit=11", "see different images, targets or results"),
    ],
)
def test_processes_with_different_commands_are_refused(flags, tmp_path, second, message):
    processes = start_two(tmp_path / "out", *flags, second=[second])
    told = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [2, 2], told
    assert any(message in text for text in told)
    assert read_results(tmp_path / "out") == []


@with_diffae
def test_another_number_of_processes_goes_on(flags, uninterrupted, tmp_path):
    out = tmp_path / "out"
    processes = start_two(out, *flags)
    wait_for_lines(out, 2, processes[0])
    for process in processes:
        process.kill()
        process.communicate()
    before = read_results(out)
    assert before
    explaining.explain(out, *flags)
    assert_equal_results(out, uninterrupted)
    assert [row for row in read_results(out) if row in before] == before
