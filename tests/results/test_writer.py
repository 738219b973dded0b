"""Writing, continuing and reading results, crashes and full disks included."""

import json
import os
import pickle
import resource
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from diffcf_jax.errors import UserError
from diffcf_jax.files import encode_npy, read_image, to_uint8
from diffcf_jax.jsonfile import strict_json
from diffcf_jax.report.figures import heatmap
from diffcf_jax.results.log import (
    image_path,
    read_codes,
    read_results,
    result_key,
    write_results,
)
from diffcf_jax.results.workdir import start_over
from diffcf_jax.results.writer import ResultWriter
from tests.results.made import make_counterfactual, make_record


def files(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_saved_images_and_line_read_back(tmp_path):
    mask = np.zeros((8, 8), bool)
    mask[2:4, 2:4] = True
    record = make_record(name="sub/b.jpg", mask=mask)
    counterfactual = make_counterfactual()
    with ResultWriter(tmp_path, ["a.png", "sub/b.jpg"]) as writer:
        row = writer.save(record, np.float32(0.7), counterfactual, 1.23456, unit="years")
    assert read_results(tmp_path) == [row] and row["unit"] == "years"
    folders = ["cf", "heatmap", "input", "masks", "reconstruction"]
    assert files(tmp_path) == [*(f"{f}/sub/b.png" for f in folders), "results.jsonl"]
    cf = read_image(tmp_path / row["cf"])
    assert np.array_equal(cf / np.float32(255), counterfactual.image)
    assert np.array_equal(read_image(tmp_path / row["input"]), record.image)
    assert np.array_equal(read_image(tmp_path / row["heatmap"]), heatmap(record.image, cf))
    assert np.array_equal(read_image(tmp_path / row["square_mask"]) > 127, mask)
    reconstruction = read_image(tmp_path / row["reconstruction"])
    assert np.abs(reconstruction / 255 - counterfactual.reconstruction).max() <= 0.5001 / 255
    change = np.abs(cf.astype(int) - record.image).mean() / 255
    assert row["pixel_change"] == pytest.approx(change, rel=1e-6)
    assert (row["target"], row["y_true"], row["y_final"]) == (0.7, 0.25, 0.7)
    assert (row["iterations"], row["success"], row["reason"]) == (3, True, None)
    assert (row["seconds"], row["curve"]) == (1.235, [0.2, 0.5, 0.7])


def test_codes_are_saved_beside_the_images(tmp_path):
    codes = np.arange(8, dtype=np.float32).reshape(2, 4)
    with ResultWriter(tmp_path, ["a.png"]) as writer:
        row = writer.save(make_record(), 0.7, make_counterfactual(codes=codes), 1.0)
    assert row["codes"] == "codes/a.npy" and row["latent_change"] == 8.0  # |(4, 4, 4, 4)|
    assert np.array_equal(read_codes(tmp_path, read_results(tmp_path)[0]), codes)
    (tmp_path / row["codes"]).write_bytes(encode_npy(codes[:1]))
    with pytest.raises(UserError, match=r"a\.npy holds no two codes"):
        read_codes(tmp_path, row)
    (tmp_path / row["codes"]).write_bytes(pickle.dumps(codes))
    with pytest.raises(UserError, match=r"a\.npy: it is not a NumPy file of numbers"):
        read_codes(tmp_path, row)


def test_images_are_rounded_not_truncated():
    every_grey = np.arange(256, dtype=np.uint8)
    assert np.array_equal(to_uint8(every_grey.astype(np.float32) / 255, "x"), every_grey)
    shifted = np.array([-1.0, 0.49, 0.51, 254.9, 300.0]) / 255
    assert to_uint8(shifted, "x").tolist() == [0, 0, 1, 255, 255]


def test_several_targets_are_in_the_file_names(tmp_path):
    with ResultWriter(tmp_path, ["a.png"], several_targets=True) as writer:
        for target in (0.2, 0.8):
            writer.save(make_record(), target, make_counterfactual(), 1.0)
        assert writer.finished() == {("a.png", 0.2, 1), ("a.png", 0.8, 1)}
    rows = read_results(tmp_path)
    assert [row["cf"] for row in rows] == ["cf/a_target_0.2.png", "cf/a_target_0.8.png"]
    assert {row["input"] for row in rows} == {"input/a.png"}


def test_a_target_is_the_same_in_either_precision():
    for value in (0.2, 0.8, 128 / 255, 37.0, 1e-5):
        assert result_key("a", value) == result_key("a", float(np.float32(value)))
    assert result_key("a", 0.2) == ("a", 0.2, 1)


def test_names_that_differ_in_their_suffix_do_not_collide(tmp_path):
    names = ["a.jpg", "a.png", "b.jpg"]
    with ResultWriter(tmp_path, names) as writer:
        rows = [
            writer.save(make_record(i, name), 0.5, make_counterfactual(i), 1.0)
            for i, name in enumerate(names)
        ]
    assert [row["cf"] for row in rows] == ["cf/a.jpg.png", "cf/a.png.png", "cf/b.png"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["../a.png"], "leads out"),
        (["/a.png"], "leads out"),
        (["a.png", "a.png"], "more than once"),
        (["a.jpg", "a.png", "a.jpg.tif"], "rename"),
    ],
)
def test_bad_names(tmp_path, names, message):
    with pytest.raises(UserError, match=message):
        ResultWriter(tmp_path, names)


def test_rerun_keeps_what_is_finished_and_retries_the_rest(tmp_path):
    names = ["a.png", "b.png", "c.png"]
    with ResultWriter(tmp_path, names) as writer:
        kept = writer.save(make_record(0, "a.png"), 0.5, make_counterfactual(), 1.0)
        lost = writer.save(make_record(1, "b.png"), 0.5, make_counterfactual(), 1.0)
        writer.save_error(2, "c.png", None, "cannot read c.png")
        assert writer.finished() == {("a.png", 0.5, 1), ("b.png", 0.5, 1)}
    (tmp_path / lost["heatmap"]).unlink()
    with open(tmp_path / "results.jsonl", "a") as file:
        file.write('{"id": 7, "na')  # what a crash leaves
    assert [row["id"] for row in read_results(tmp_path)] == [0, 1, 2]
    with ResultWriter(tmp_path, names) as writer:
        assert writer.finished() == {("a.png", 0.5, 1)}
        assert read_results(tmp_path) == [kept]
        writer.save(make_record(1, "b.png"), 0.5, make_counterfactual(), 1.0)
    assert [row["id"] for row in read_results(tmp_path)] == [0, 1]


def test_an_image_that_was_cut_short_is_made_again(tmp_path):
    with ResultWriter(tmp_path, ["a.png"]) as writer:
        row = writer.save(make_record(0, "a.png"), 0.5, make_counterfactual(), 1.0)
    whole = (tmp_path / row["cf"]).read_bytes()
    for data, finished in ((whole, 1), (whole[:-1], 0), (whole[: len(whole) // 2], 0), (b"", 0)):
        log = (tmp_path / "results.jsonl").read_bytes()
        (tmp_path / row["cf"]).write_bytes(data)
        with ResultWriter(tmp_path, ["a.png"]) as writer:
            assert len(writer.finished()) == finished
        (tmp_path / "results.jsonl").write_bytes(log)


def test_a_flipped_byte_is_noticed(tmp_path):
    with ResultWriter(tmp_path, ["a.png", "b.png"]) as writer:
        for i, name in enumerate(["a.png", "b.png"]):
            row = writer.save(make_record(i, name), 0.5, make_counterfactual(i), 1.0)
    path = tmp_path / row["heatmap"]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with ResultWriter(tmp_path, ["a.png", "b.png"]) as writer:
        assert writer.finished() == {("a.png", 0.5, 1)}


def test_nothing_outside_the_folder_is_read_written_or_removed(tmp_path):
    out, other = tmp_path / "out", tmp_path / "other"
    other.mkdir()
    with ResultWriter(out, ["a.png", "b.png"]) as writer:
        for i, name in enumerate(["a.png", "b.png"]):
            writer.save(make_record(i, name), 0.5, make_counterfactual(i), 1.0)
    rows = read_results(out)
    victim = other / "victim.png"
    victim.write_bytes((out / rows[0]["cf"]).read_bytes())
    (out / "linked").symlink_to(other)
    for name in (str(victim), "../other/victim.png", "linked/victim.png"):
        edited = [{**rows[0], "cf": name}, rows[1]]
        write_results(out, edited)
        with pytest.raises(UserError, match=f"{name}. leads out of {out}"):
            image_path(out, edited[0], "cf")
        with ResultWriter(out, ["a.png", "b.png"]) as writer:
            assert writer.finished() == {("b.png", 0.5, 1)}  # a.png is to be made again
        write_results(out, edited)
    start_over(out)
    assert victim.is_file() and not (out / rows[1]["cf"]).exists()

    shutil.rmtree(out / "cf")
    (out / "cf").symlink_to(other)
    with (
        ResultWriter(out, ["victim.png"]) as writer,
        pytest.raises(UserError, match=f"cf/victim.png. leads out of {out}"),
    ):
        writer.save(make_record(0, "victim.png"), 0.5, make_counterfactual(), 1.0)
    assert [path.name for path in other.iterdir()] == ["victim.png"]


@pytest.mark.parametrize("change", [shutil.rmtree, lambda path: path.rename(f"{path}2")])
def test_a_folder_that_is_removed_stops_the_run(tmp_path, change):
    out = tmp_path / "out"
    with ResultWriter(out, ["a.png"]) as writer:
        writer.check()
        change(out)
        for _ in range(2):
            with pytest.raises(UserError, match="out was removed or replaced while this run"):
                writer.check()
            with pytest.raises(UserError, match="out was removed or replaced while this run"):
                writer.save(make_record(), 0.5, make_counterfactual(), 1.0)
        assert not out.exists()


@pytest.mark.parametrize("several_targets", [False, True])
def test_names_at_the_limit_of_the_file_system(tmp_path, several_targets):
    names = [
        251 * "a" + ".png",
        "sub/" + 125 * "é" + ".tiff",
        240 * "b" + ".jpg",
        240 * "b" + "c.png",
    ]
    for target in (0.25, -1.5e-30):
        with ResultWriter(tmp_path, names, several_targets) as writer:
            for i, name in enumerate(names):
                writer.save(make_record(i, name), target, make_counterfactual(i), 1.0)
    with ResultWriter(tmp_path, names, several_targets) as writer:
        assert len(writer.finished()) == 8
    rows = read_results(tmp_path)
    assert [row["name"] for row in rows] == 2 * names
    assert len({row["cf"] for row in rows}) == 8
    for row in rows:
        expected = to_uint8(make_counterfactual(row["id"]).image, "x")
        assert np.array_equal(read_image(tmp_path / row["cf"]), expected)


def test_a_pipe_is_no_log(tmp_path):
    os.mkfifo(tmp_path / "results.jsonl")
    with pytest.raises(UserError, match=r"results\.jsonl: it is not a regular file"):
        ResultWriter(tmp_path, ["a.png"])
    (tmp_path / "other").mkdir()
    os.mkfifo(tmp_path / "other" / "results.1.jsonl")
    with pytest.raises(UserError, match=r"cannot write .*results\.1\.jsonl"):
        ResultWriter(tmp_path / "other", ["a.png"], process=1)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "Expecting"),
        ("[1]", "not a JSON object"),
        ('{"id": 1, "name": "x", "target": 0.5}', '"y_true" is missing'),
        ('{"id": true, "name": "x", "target": 0.5, "error": "e"}', '"id" has the value True'),
        ('{"id": 1, "name": "x", "target": "0.5", "error": "e"}', '"target" has the value'),
        ('{"id": 1, "name": "x", "target": NaN, "error": "e"}', "it holds NaN"),
        ('{"id": 1, "name": "x", "target": 1e39, "error": "e"}', '"target" has the value 1e'),
        (
            '{"id": 1' + 400 * "0" + ', "name": "x", "target": 1, "error": ""}',
            '"id" has the .*0{9}',
        ),
        ('{"id": 1' + 5000 * "0" + "}", "too many digits"),
        ('{"id": ' + 100_000 * "[" + "1}", "nested too deeply"),
        (r'{"id": 1, "name": "\ud800", "target": 1, "error": ""}', "half a surrogate pair"),
        (r'{"id": 1, "name": "a\u0000", "target": 1, "error": ""}', "or a NUL"),
    ],
)
def test_a_broken_line_is_named(tmp_path, line, reason):
    good = '{"id": 0, "name": "x", "target": null, "error": "e"}\n'
    (tmp_path / "results.jsonl").write_text(good + line + "\n" + good)
    with pytest.raises(UserError, match=f"results.jsonl line 2 is broken .*{reason}"):
        read_results(tmp_path)


@pytest.mark.parametrize(
    "change",
    [{"curve": ["0.5"]}, {"curve": [1e39]}, {"curve": [True]}, {"curve": {}}, {"success": 1},
     {"iterations": 1.5}, {"y_final": 10**400}, {"cf": None}, {"reason": 3}, {"seconds": []}],
)  # fmt: skip
def test_a_value_of_another_kind_is_named(tmp_path, change):
    with ResultWriter(tmp_path, ["a.png"]) as writer:
        row = writer.save(make_record(), 0.5, make_counterfactual(), 1.0)
    (key,) = change
    (tmp_path / "results.jsonl").write_text(json.dumps({**row, **change}) + "\n")
    with pytest.raises(UserError, match=f'line 1 is broken .*"{key}" has the value') as raised:
        read_results(tmp_path)
    assert len(str(raised.value)) < 400 + len(str(tmp_path))
    start_over(tmp_path)  # what cannot be read is removed all the same
    assert not (tmp_path / "results.jsonl").exists()


def test_missing_results(tmp_path):
    with pytest.raises(UserError, match=r"results\.jsonl: No such file"):
        read_results(tmp_path)


def test_json_is_strict(tmp_path):
    values = {"y_initial": np.float32("nan"), "y_final": np.float32("inf")}
    curve = np.array([0.5, np.inf, 0.25, np.nan], np.float32)
    with ResultWriter(tmp_path, ["a.png"]) as writer:
        writer.save(make_record(), 0.5, make_counterfactual(curve=curve, **values), 1.0, "NaN")
    text = (tmp_path / "results.jsonl").read_text()
    row = json.loads(text, parse_constant=pytest.fail)
    assert (row["y_initial"], row["y_final"], row["curve"]) == (None, None, [0.5, None, 0.25])
    assert read_results(tmp_path) == [row]
    plain = {"a": (np.float32(1), np.nan), "b": np.arange(2), 3: tmp_path}
    assert json.loads(strict_json(plain)) == {"a": [1.0, None], "b": [0, 1], "3": str(tmp_path)}


def test_an_image_with_nan_is_refused(tmp_path):
    image = np.full((8, 8, 3), np.nan, np.float32)
    with (
        ResultWriter(tmp_path, ["a.png"]) as writer,
        pytest.raises(UserError, match=r"counterfactual of a\.png holds values that are not"),
    ):
        writer.save(make_record(), 0.5, make_counterfactual(image=image), 1.0)
    assert files(tmp_path) == ["results.jsonl"]


def test_threads_may_save_at_the_same_time(tmp_path):
    names = [f"{i}.png" for i in range(12)]
    jobs = [(i, name, target) for i, name in enumerate(names) for target in (0.1, 0.2, 0.3)]
    with ResultWriter(tmp_path, names, several_targets=True) as writer:

        def save(job):
            i, name, target = job
            return writer.save(make_record(i, name), target, make_counterfactual(i), 1.0)

        with ThreadPoolExecutor(8) as pool:
            rows = list(pool.map(save, jobs))
        assert writer.finished() == {(name, target, 1) for _, name, target in jobs}
    assert sorted(map(str, read_results(tmp_path))) == sorted(map(str, rows))
    assert len(files(tmp_path)) == 1 + 3 * len(jobs) + len(names)  # no temporary file stays


def test_another_target_takes_another_file(tmp_path):
    for target in (0.2, 0.3, 0.2):
        with ResultWriter(tmp_path, ["a.png"]) as writer:
            if ("a.png", target, 1) not in writer.finished():
                writer.save(make_record(), target, make_counterfactual(), 1.0)
    rows = read_results(tmp_path)
    assert [row["cf"] for row in rows] == ["cf/a.png", "cf/a_target_0.3.png"]


def test_a_folder_that_has_grown(tmp_path):
    with ResultWriter(tmp_path, ["b.png"]) as writer:
        writer.save(make_record(0, "b.png"), 0.5, make_counterfactual(), 1.0)
    with ResultWriter(tmp_path, ["a.png", "b.png"]) as writer:
        assert writer.finished() == {("b.png", 0.5, 1)}
        writer.save(make_record(0, "a.png"), 0.5, make_counterfactual(), 1.0)
    assert [(row["id"], row["name"]) for row in read_results(tmp_path)] == [
        (1, "b.png"),
        (0, "a.png"),
    ]


def test_every_process_has_a_log_and_readers_see_one(tmp_path):
    names = [f"{i}.png" for i in range(4)]

    def open_writer(process):
        return ResultWriter(tmp_path, names, process=process)

    def save(writer, i):
        return writer.save(make_record(i, names[i]), 0.5, make_counterfactual(i), 1.0)

    with open_writer(0) as zero, open_writer(1) as one:
        rows = [save(zero, 0), save(one, 1), save(one, 2)]
        error = one.save_error(3, "3.png", None, "message")
    assert read_results(tmp_path) == [*rows, error]
    log = tmp_path / "results.1.jsonl"
    before = log.read_bytes()
    with open(log, "ab") as file:
        file.write(b'{"id": 7, "na')  # what a crash leaves

    # A run of one process goes on, and so would one of three.
    with open_writer(0) as zero:
        assert not log.exists()
        assert zero.finished() == {(name, 0.5, 1) for name in names[:3]}
        rows.append(save(zero, 3))
    assert read_results(tmp_path) == rows  # the error is made up for
    log.write_bytes(before)  # a crash between writing the one and removing the other
    assert read_results(tmp_path) == [rows[0], rows[3], rows[1], rows[2]]
    write_results(tmp_path, read_results(tmp_path))
    assert sorted(map(str, read_results(tmp_path))) == sorted(map(str, rows))
    assert not log.exists()


@pytest.fixture
def file_size_limit():
    """Makes writing beyond a size fail, as a full disk does."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, old[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, old)


def test_full_disk(tmp_path, file_size_limit):
    with ResultWriter(tmp_path, ["a.png", "b.png"]) as writer:
        writer.save(make_record(0, "a.png"), 0.5, make_counterfactual(), 1.0)
        before = files(tmp_path), (tmp_path / "results.jsonl").read_bytes()
        file_size_limit(20)
        with pytest.raises(UserError, match=r"cannot write .*input/b\.png: .*free some space"):
            writer.save(make_record(1, "b.png"), 0.5, make_counterfactual(), 1.0)
        file_size_limit(len(before[1]) + 10)  # the line is cut in its middle
        with pytest.raises(UserError, match=r"cannot write .*results\.jsonl"):
            writer.save_error(1, "b.png", None, "message")
        assert (files(tmp_path), (tmp_path / "results.jsonl").read_bytes()) == before
        file_size_limit(1 << 30)
        writer.save(make_record(1, "b.png"), 0.5, make_counterfactual(), 1.0)
    assert [row["id"] for row in read_results(tmp_path)] == [0, 1]


def test_workdir_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write .*file/out: .*choose another folder"):
        ResultWriter(tmp_path / "file" / "out", ["a.png"])


_ENDLESS = """
import sys
sys.path[:0] = sys.argv[2:]
from diffcf_jax.results.writer import ResultWriter
from made import make_counterfactual, make_record
names = [f"{i}.png" for i in range(1000)]
with ResultWriter(sys.argv[1], names) as writer:
    for i, name in enumerate(names):
        if (name, 0.5, 1) not in writer.finished():
            writer.save(make_record(i, name), 0.5, make_counterfactual(i), 1.0)
"""


def test_kill_9_loses_and_repeats_nothing(tmp_path):
    paths = [os.path.dirname(__file__), os.getcwd()]
    done = 0
    for _ in range(2):
        process = subprocess.Popen([sys.executable, "-c", _ENDLESS, str(tmp_path), *paths])
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and process.poll() is None:
            if len(files(tmp_path / "cf")) > done + 5:
                break
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        rows = read_results(tmp_path)
        assert len(rows) > done
        done = len(rows)
        assert [row["id"] for row in rows] == list(range(done))
        for i, row in enumerate(rows):
            expected = to_uint8(make_counterfactual(i).image, "x")
            assert np.array_equal(read_image(tmp_path / row["cf"]), expected)
