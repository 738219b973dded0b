"""The stream of training batches: its order, its restarts, its processes, and corrupt files."""

import collections
import itertools
import multiprocessing
import os
import signal
import threading
import time

import numpy as np
import pytest
from PIL import Image

from diffcf_jax.data import loader
from diffcf_jax.data.labelled import LabelledImages
from diffcf_jax.data.loader import batch_rows, batches, read_rows
from diffcf_jax.errors import UserError

COUNT = 200


class Arrays:
    """A data set in memory, like the squares."""

    images = np.arange(10 * 4 * 4 * 3, dtype=np.uint8).reshape(10, 4, 4, 3)
    labels = np.arange(10, dtype=np.float32)

    def __len__(self):
        return 10


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    names = [f"{i:03d}.png" for i in range(COUNT)]
    for i, name in enumerate(names):
        Image.new("RGB", (4, 4), (i, 255 - i, 7)).save(folder / name)
    return LabelledImages(folder, names, np.arange(COUNT), 4)


def corrupt(files, tmp_path, *rows):
    """A copy of the data set with some corrupt files."""
    for i, name in enumerate(files.names):
        (tmp_path / name).symlink_to(files.path / name)
        if i in rows:
            (tmp_path / name).unlink()
            (tmp_path / name).write_bytes(b"no image")
    return LabelledImages(tmp_path, files.names, files.labels, 4)


def take(stream, count):
    return list(itertools.islice(stream, count))


def assert_same(some, others):
    for (images, labels), (other_images, other_labels) in zip(some, others, strict=True):
        np.testing.assert_array_equal(images, other_images)
        np.testing.assert_array_equal(labels, other_labels)


def test_rows_depend_on_seed_and_update_only():
    rows = [batch_rows(10, 3, seed=1, update=update) for update in range(9)]
    for epoch in range(3):
        assert len(np.unique(rows[3 * epoch : 3 * epoch + 3])) == 9
    assert not np.array_equal(rows[:3], rows[3:6])
    assert not np.array_equal(rows[0], batch_rows(10, 3, seed=2, update=0))
    order = np.random.default_rng([1, 2]).permutation(10)
    np.testing.assert_array_equal(rows[7], order[3:6])


@pytest.mark.parametrize("kind", ["arrays", "files"])
def test_batches(kind, files):
    data = Arrays() if kind == "arrays" else files
    stream = batches(data, batch_size=3, seed=1, start=0)
    whole = take(stream, 9)
    for update, (images, labels) in enumerate(whole):
        assert images.dtype == np.uint8 and images.shape == (3, 4, 4, 3)
        assert labels.dtype == np.float32
        rows = batch_rows(len(data), 3, 1, update)
        np.testing.assert_array_equal(labels, rows)
        first = images[:, 0, 0, 0]
        np.testing.assert_array_equal(
            first, data.images[rows, 0, 0, 0] if kind == "arrays" else rows
        )
    for start in (1, 3, 8):
        assert_same(take(batches(data, 3, 1, start), 9 - start), whole[start:])
    assert stream.skipped == {}
    stream.close()
    assert take(stream, 1) == []


def test_every_process_reads_its_own_rows(files):
    whole = take(batches(files, 8, seed=0, start=5), 3)
    parts = [take(batches(files, 8, 0, 5, process_index=i, process_count=4), 3) for i in range(4)]
    for update, (images, labels) in enumerate(whole):
        for k, expected in enumerate((images, labels)):
            joined = np.concatenate([part[update][k] for part in parts])
            np.testing.assert_array_equal(joined, expected)


def test_worker_processes_give_the_same_stream(files, tmp_path):
    data = corrupt(files, tmp_path, 7, 50)
    expected = batches(data, 50, seed=3, start=2)
    stream = batches(data, 50, seed=3, start=2, workers=2)
    assert_same(take(stream, 5), take(expected, 5))
    assert stream.skipped == expected.skipped and set(stream.skipped) == {"007.png", "050.png"}
    stream.close()


def test_signals_to_all_processes_are_not_for_workers(files):
    def terminate_when_started():
        while not multiprocessing.active_children():
            time.sleep(0.001)
        for worker in multiprocessing.active_children():
            os.kill(worker.pid, signal.SIGTERM)

    stream = batches(files, 50, seed=3, start=2, workers=2)
    starting = threading.Thread(target=terminate_when_started)
    starting.start()
    read = take(stream, 1)
    starting.join()
    for worker in multiprocessing.active_children():
        os.kill(worker.pid, signal.SIGTERM)
        os.kill(worker.pid, signal.SIGINT)
    assert_same(read + take(stream, 9), take(batches(files, 50, seed=3, start=2), 10))
    stream.close()
    assert not multiprocessing.active_children()


def test_a_worker_that_dies_ends_the_stream(files):
    stream = batches(files, 50, seed=3, start=0, workers=3)
    take(stream, 1)
    time.sleep(1)  # all wait for work, one of them with the lock of their queue
    *killed, other = multiprocessing.active_children()
    for worker in killed:
        worker.kill()
    with pytest.raises(UserError, match="workers=3 processes that read images died"):
        take(stream, 99)
    assert not other.is_alive()


def test_decoded_images_are_kept(files, monkeypatch):
    reads = collections.Counter()

    class Counting(LabelledImages):
        def __getitem__(self, i):
            reads[i] += 1
            return super().__getitem__(i)

    data = Counting(files.path, files.names, files.labels, 4)
    monkeypatch.setattr(loader, "CACHE_BYTES", 150 * 4 * 4 * 3)
    take(batches(data, COUNT, 0, 0), 3)
    assert collections.Counter(reads.values()) == {1: 150, 3: 50}


def test_a_corrupt_file_is_replaced_counted_and_named(files, tmp_path, caplog):
    data = corrupt(files, tmp_path, 7, 199)
    images, labels, bad = read_rows(data, np.array([6, 7, 199]))
    np.testing.assert_array_equal(labels, [6, 8, 0])  # the next readable one
    np.testing.assert_array_equal(images[:, 0, 0, 0], [6, 8, 0])
    assert list(bad) == ["007.png", "199.png"] and "cannot be read" in bad["007.png"]

    stream = batches(data, COUNT, 0, 0)
    take(stream, 2)
    assert set(stream.skipped) == {"007.png", "199.png"}
    assert [str(tmp_path) in message for message in caplog.messages] == [True, True]


def test_too_many_corrupt_files_stop(files, tmp_path):
    data = corrupt(files, tmp_path, 1, 2, 3)
    with pytest.raises(UserError, match=r"3 of the 200 images .* more than 1%: .*00\d\.png"):
        take(batches(data, 100, 0, 0), 2)
    # Of a part of a data set the whole counts.
    part = LabelledImages(tmp_path, data.names[:20], data.labels[:20], 4, total=300)
    assert set(read_rows(part, np.arange(20))[2]) == {"001.png", "002.png", "003.png"}


def test_bad_batch_sizes(files):
    with pytest.raises(UserError, match="batch_size=201 .*200"):
        batches(files, 201, 0, 0)
    with pytest.raises(UserError, match="batch_size=0"):
        batches(files, 0, 0, 0)
    with pytest.raises(UserError, match="multiple of the 3 processes"):
        batches(files, 8, 0, 0, process_count=3)
