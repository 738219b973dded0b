"""Batches for training: in an order that is known in advance, so that a restart continues it."""

import functools
import itertools
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection, wait
from typing import Any

import numpy as np
from absl import logging

from diffcf_jax.errors import UserError

LARGEST_BAD_SHARE = 0.01
CACHE_BYTES = 1 << 30


class Batches(Iterator):
    """The endless stream of (images, labels) that `batches` makes.

    Attributes:
        skipped: why a file could not be read, by name; grows while the stream is read.
    """

    def __init__(self, data: Any, stream: Generator):
        self.skipped: dict[str, str] = {}
        self._data = data
        self._stream = stream

    def __next__(self) -> tuple[np.ndarray, np.ndarray]:
        images, labels, bad = next(self._stream)
        note_skipped(self.skipped, bad, self._data)
        return images, labels

    def close(self) -> None:
        """End the stream and its worker processes, if any."""
        self._stream.close()


def batches(
    data: Any,
    batch_size: int,
    seed: int,
    start: int,
    workers: int = 0,
    process_index: int = 0,
    process_count: int = 1,
) -> Batches:
    """Yield images (uint8 [B, H, W, 3]) and labels (float32 [B]) of each update from `start` on.

    Every epoch is a fresh shuffle; its last rows that do not fill a batch are left out. The rows of
    a batch depend on (seed, update) only, so a run that restarts continues the same stream with any
    number of workers. An unreadable file is replaced by the next readable one (see `read_rows`).

    Args:
        data: a data set with `labels` (float32 [N]); with `images` (uint8 [N, H, W, 3]) its rows
            are taken from there, otherwise its records are read one by one.
        batch_size: images per update, of all processes together.
        seed: of the shuffles.
        start: the first update, from 0.
        workers: processes that read files ahead. 0: this process reads, and keeps as many decoded
            images in memory as fit in `CACHE_BYTES`.
        process_index: of this process in a multi-host run.
        process_count: processes of the run; each gets its own `batch_size / process_count` rows.

    Raises:
        UserError: a batch is larger than the data set or not a multiple of the processes; while
            reading: more than 1% of the files cannot be read.
    """
    if not 1 <= batch_size <= len(data):
        raise UserError(
            f"config.batch_size={batch_size} must be at least 1 and at most the number of training "
            f"images ({len(data)})"
        )
    if batch_size % process_count:
        raise UserError(
            f"config.batch_size={batch_size} must be a multiple of the {process_count} processes"
        )
    share = batch_size // process_count
    mine = slice(process_index * share, (process_index + 1) * share)

    def rows(update: int) -> np.ndarray:
        return batch_rows(len(data), batch_size, seed, update)[mine]

    if hasattr(data, "images"):
        stream = ((data.images[r], data.labels[r], {}) for r in map(rows, itertools.count(start)))
    elif workers:
        stream = _read_ahead(data, rows, start, workers)
    else:
        cached = _Cached(data)
        stream = (read_rows(cached, r) for r in map(rows, itertools.count(start)))
    return Batches(data, stream)


def batch_rows(size: int, batch_size: int, seed: int, update: int) -> np.ndarray:
    """Rows of the batch of one update, int64 [batch_size]."""
    epoch, batch = divmod(update, size // batch_size)
    return _shuffle(size, seed, epoch)[batch * batch_size : (batch + 1) * batch_size]


def read_rows(data: Any, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, dict[str, str]]:
    """Read some records; for one that cannot be read the next readable record is taken.

    Args:
        data: a data set with `labels`.
        rows: int [n].

    Returns:
        Images uint8 [n, H, W, 3], labels float32 [n], and by name why a file could not be read.

    Raises:
        UserError: more than 1% of the files cannot be read.
    """
    images, labels, bad = [], [], {}
    for row in map(int, rows):
        while True:
            try:
                images.append(data[row].image)
                labels.append(data.labels[row])
                break
            except UserError as error:
                bad[data.names[row]] = str(error)
                _check_share(bad, data)
                row = (row + 1) % len(data)
    return np.stack(images), np.asarray(labels, np.float32), bad


def note_skipped(skipped: dict[str, str], bad: Mapping[str, str], data: Any) -> None:
    """Add files that could not be read to those that are known, and reports the new ones.

    Args:
        skipped: why a file could not be read, by name; of all reads so far.
        bad: the same, of one read.
        data: the data set.

    Raises:
        UserError: more than 1% of the files cannot be read.
    """
    for name, reason in bad.items():
        if name not in skipped:
            skipped[name] = reason
            logging.warning("Skipped (%d so far): %s", len(skipped), reason)
    _check_share(skipped, data)


def _check_share(bad: dict[str, str], data: Any) -> None:
    """Raise a UserError if more than 1% of a data set's files cannot be read."""
    size = getattr(data, "total", len(data))  # of a part, that of the whole
    if len(bad) > LARGEST_BAD_SHARE * size:
        raise UserError(
            f"{len(bad)} of the {size} images cannot be read, more than "
            f"{LARGEST_BAD_SHARE:.0%}: {next(iter(bad.values()))}"
        )


@functools.lru_cache(maxsize=2)
def _shuffle(size: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(size)


class _Cached:
    """A data set that keeps its decoded records until they fill `CACHE_BYTES`."""

    def __init__(self, data: Any):
        self.names, self.labels = data.names, data.labels
        self.total = getattr(data, "total", len(data))
        self._data = data
        self._records: dict[int, Any] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, row: int) -> Any:
        record = self._records.get(row)
        if record is None:
            record = self._data[row]
            if self._bytes + record.image.nbytes <= CACHE_BYTES:
                self._records[row] = record
                self._bytes += record.image.nbytes
        return record


def _read_ahead(
    data: Any, rows: Callable[[int], np.ndarray], start: int, workers: int
) -> Iterator[tuple[np.ndarray, np.ndarray, dict[str, str]]]:
    """Yield the batches of update `start`, `start + 1`, ... from worker processes, in order."""
    # Started afresh instead of forked: a fork of a process with JAX's threads can hang.
    context = multiprocessing.get_context("spawn")
    ended, parent_end = context.Pipe(duplex=False)
    with ProcessPoolExecutor(workers, context, _start_worker, (data, ended)) as pool, parent_end:
        updates = map(rows, itertools.count(start))
        try:
            ahead = deque(_submit(pool, next(updates)) for _ in range(2 * workers))
            while True:
                batch = ahead.popleft().result()
                ahead.append(_submit(pool, next(updates)))
                yield batch
        except BrokenProcessPool:
            parent_end.close()
            raise UserError(
                f"one of config.workers={workers} processes that read images died, perhaps for "
                "lack of memory: set fewer"
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)


def _submit(pool: ProcessPoolExecutor, rows: np.ndarray) -> Future:
    """Hand a batch to the workers, of which this may start another."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        return pool.submit(_read_in_worker, rows)
    # A worker inherits what is blocked here, so that it is deaf from its first instruction on.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _NOT_FOR_WORKERS)
    try:
        return pool.submit(_read_in_worker, rows)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# These may reach all processes of a training, and are for the training process to handle.
_NOT_FOR_WORKERS = (signal.SIGINT, signal.SIGTERM)
_worker_data: Any = None  # what a worker process reads from; sent to it once


def _start_worker(data: Any, ended: Connection) -> None:
    global _worker_data
    _worker_data = data
    for number in _NOT_FOR_WORKERS:
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, args=(ended,), daemon=True).start()


def _exit_with_parent(ended: Connection) -> None:
    # A training process that is killed cannot tell its workers, which would wait for ever. Nor can
    # the pool, which sends SIGTERM to the others when one of them dies.
    wait([ended])
    os._exit(1)


def _read_in_worker(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, dict[str, str]]:
    return read_rows(_worker_data, rows)
