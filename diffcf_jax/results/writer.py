"""Results on disk: the images of every finished input, and one line for each in results.jsonl.

    OUT/results.jsonl                 one strict JSON object a line (`ResultWriter.save`, `log`)
    OUT/input/NAME.png                the image that was explained, as the networks saw it
    OUT/reconstruction/NAME.png
    OUT/cf/NAME.png                   the counterfactual
    OUT/heatmap/NAME.png              counterfactual - input (`figures.heatmap`)
    OUT/codes/NAME.npy                [2, D] float32, semantic codes of input and counterfactual
    OUT/cf/NAME_answer_2.png          a further answer, if there are several; so in other folders
    OUT/masks/NAME.png                white inside the inner square; squares data set only
    OUT/allowed/NAME.png              white where the image was allowed to change; with masks only

A line is written after its images are safely on disk, so whatever results.jsonl names exists,
also after a crash.
"""

import collections
import hashlib
import itertools
import math
import os
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from diffcf_jax.data.record import Record
from diffcf_jax.errors import UserError
from diffcf_jax.files import (
    cannot_write,
    encode_npy,
    encode_png,
    inside,
    is_whole_png,
    make_folder,
    to_uint8,
    write_file,
)
from diffcf_jax.jsonfile import strict_json
from diffcf_jax.report.figures import heatmap
from diffcf_jax.results.log import (
    IMAGES,
    Key,
    image_path,
    key_of,
    log_path,
    read_results,
    result_key,
    write_results,
)
from diffcf_jax.target import Target, plain

if TYPE_CHECKING:
    from diffcf_jax.counterfactual.types import Counterfactual

# Key of a line -> the folder of its images, where that has another name: the paper's scripts'
_FOLDERS = {"square_mask": "masks", "mask": "allowed"}
_NO_LINK = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


class ResultWriter:
    """Writes the results of one process; every method may be called from any thread.

    Opening a folder that already holds results continues it. Process 0 tidies up first: finished
    lines stay, those of other processes' logs move into results.jsonl, a line torn by a crash
    goes, and so do `error` lines and lines whose images have been removed or cut short, because
    those inputs are to be tried again. The other processes must open the folder after that.

    Args:
        workdir: the folder to write, made if it does not exist.
        names: all names of the data set. An output has its input's name with the suffix .png;
            inputs that differ only in their suffix keep it (`a.jpg` -> `a.jpg.png`). A name that
            the file system has no room for is shortened.
        several_targets: whether an image can have more than one target; the target then becomes
            part of the file names (`a_target_0.2.png`), but for input/, masks/ and allowed/.
        process: which one this is; each has a log of its own.

    Raises:
        UserError: the folder cannot be written, a name leads out of it, or a log is broken.
    """

    def __init__(
        self,
        workdir: str | Path,
        names: Sequence[str],
        several_targets: bool = False,
        process: int = 0,
    ):
        self.workdir = Path(workdir)
        self._several_targets = several_targets
        self._lock = threading.Lock()
        make_folder(self.workdir)
        self._stems = _output_stems(list(names))
        rows = read_results(workdir) if os.path.lexists(log_path(workdir, 0)) else []
        rows = _with_images(self.workdir, [row for row in rows if "error" not in row])
        self._path = log_path(workdir, process)
        if process == 0:
            ids = {name: i for i, name in enumerate(names)}  # a folder may have grown
            rows = [{**row, "id": ids.get(row["name"], row["id"])} for row in rows]
            write_results(workdir, rows)
        elif not self._path.exists():
            write_file(self._path, b"")
        self._finished = {key_of(row) for row in rows}
        self._owners = {row["cf"]: key_of(row) for row in rows}
        try:
            # Neither through a link nor into a pipe.
            self._log = os.open(self._path, os.O_WRONLY | os.O_APPEND | _NO_LINK)
        except OSError as error:
            raise cannot_write(self._path, error) from error

    def finished(self) -> set[Key]:
        """Keys (`result_key`) of everything that is done and on disk, errors not included."""
        with self._lock:
            return set(self._finished)

    def save(
        self,
        record: Record,
        target: Target,
        counterfactual: "Counterfactual",
        seconds: float,
        reason: str | None = None,
        unit: str | None = None,
        readings: Mapping[str, Mapping[str, float]] | None = None,
        answer: int = 1,
        allowed: np.ndarray | None = None,
    ) -> dict[str, Any]:
        """Writes the images of a finished input, then its line, and returns that line.

        Args:
            record: the input.
            target: what the counterfactual was to reach, in the label's unit.
            counterfactual: the result; images [H, W, 3] in [0, 1] are rounded to 8 bits.
            seconds: time spent on this image.
            reason: why it did not succeed, one sentence; None when it did.
            unit: of the target and all predictions.
            readings: name -> what an oracle or another output says, `before` and `after`.
            answer: which one for this target, from 1; the number of further ones becomes part of
                the file names (`a_answer_2.png`).
            allowed: bool [H, W], where the image was allowed to change; None: everywhere.

        Raises:
            UserError: an image holds a value that is not finite, or a file cannot be written.
        """
        cf = to_uint8(counterfactual.image, f"the counterfactual of {record.name}")
        images = {
            "input": record.image,
            "reconstruction": to_uint8(
                counterfactual.reconstruction, f"the reconstruction of {record.name}"
            ),
            "cf": cf,
            "heatmap": heatmap(record.image, cf),
        }
        if record.mask is not None:
            images["square_mask"] = record.mask.astype(np.uint8) * 255
        if allowed is not None:
            images["mask"] = allowed.astype(np.uint8) * 255
        self.check()
        key = _, target, _ = result_key(record.name, target, answer)
        whole = self._stems[record.name]
        stem = _fitting(self.workdir, whole)
        # Without the target in its name, a file may be that of an earlier run with another one.
        plain = not self._several_targets and self._owners.get(f"cf/{stem}.png", key)[:2] == key[:2]
        own = whole if plain else f"{whole}_target_{target}"
        own_stem = _fitting(self.workdir, own if answer == 1 else f"{own}_answer_{answer}")
        paths = {}
        for what, image in images.items():
            shared = what in ("input", "square_mask", "mask")
            paths[what] = f"{_FOLDERS.get(what, what)}/{stem if shared else own_stem}.png"
            # Threads that save one input's several targets meet at what is shared.
            write_file(inside(self.workdir, paths[what]), encode_png(image), owner=own_stem)
        codes = counterfactual.codes
        if codes is not None:
            paths["codes"] = f"codes/{own_stem}.npy"
            write_file(inside(self.workdir, paths["codes"]), encode_npy(codes), owner=own_stem)
        row = {
            "id": record.id,
            "name": record.name,
            "target": target,
            "answer": answer,
            "unit": unit,
            "y_true": _number(record.y),
            "y_initial": _number(counterfactual.y_initial),
            "y_reconstruction": _number(counterfactual.y_reconstruction),
            "y_final": _number(counterfactual.y_final),
            "success": bool(counterfactual.success),
            "iterations": int(counterfactual.iterations),
            "reason": reason,
            # Mean |x - x'| over pixels and channels of the saved images, in [0, 1].
            "pixel_change": _number(np.abs(record.image - cf.astype(np.float64)).mean() / 255),
            "seconds": round(float(seconds), 3),
            "input": paths["input"],
            "reconstruction": paths["reconstruction"],
            "cf": paths["cf"],
            "heatmap": paths["heatmap"],
            "square_mask": paths.get("square_mask"),
            "mask": paths.get("mask"),
            "curve": _trim_curve(counterfactual.curve),
        }
        if codes is not None:
            row["codes"] = paths["codes"]
            row["latent_change"] = _number(np.linalg.norm(codes[1] - codes[0]))
        if readings:
            row["readings"] = {
                name: {key: _number(y) for key, y in pair.items()}
                for name, pair in readings.items()
            }
        self._append(row)
        return row

    def save_error(
        self, id: int, name: str, target: Target | None, message: str, answer: int = 1
    ) -> dict[str, Any]:
        """Writes the line of an input that could not be explained, and returns it.

        Raises:
            UserError: the line cannot be written.
        """
        target = None if target is None else plain(target)
        row = {"id": id, "name": name, "target": target, "answer": answer, "error": message}
        self._append(row)
        return row

    def check(self) -> None:
        """Refuses to go on when the folder is no longer the one that was opened.

        Raises:
            UserError: it was removed, renamed or replaced.
        """
        try:
            if os.path.samestat(os.fstat(self._log), os.stat(self._path)):
                return
        except OSError:
            pass
        raise UserError(
            f"{self.workdir} was removed or replaced while this run was writing to it: run the "
            "same command again, and leave the folder where it is."
        )

    def close(self) -> None:
        """Closes the log; nothing can be saved afterwards."""
        os.close(self._log)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def _append(self, row: dict[str, Any]) -> None:
        line = (strict_json(row) + "\n").encode()
        with self._lock:
            size = os.fstat(self._log).st_size
            try:
                while line:
                    line = line[os.write(self._log, line) :]
                os.fsync(self._log)
            except OSError as error:
                os.ftruncate(self._log, size)  # half a line must not stay before the next one
                raise cannot_write(self._path, error) from error
            if "error" not in row:
                self._finished.add(key_of(row))


def _with_images(workdir: Path, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows whose images are all there and undamaged."""

    def has_images(row: dict[str, Any]) -> bool:
        try:
            paths = [image_path(workdir, row, key) for key in IMAGES if row[key] is not None]
        except UserError:  # it leads out of the folder
            return False
        return all(map(is_whole_png, paths))

    with ThreadPoolExecutor(8) as threads:
        return list(itertools.compress(rows, threads.map(has_images, rows)))


def _output_stems(names: list[str]) -> dict[str, str]:
    """For each input name the path of its outputs below their folder, without .png."""
    shortened: dict[str, list[str]] = {}
    for name in names:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or not path.name:
            raise UserError(f'the image name "{name}" leads out of the data set\'s folder')
        shortened.setdefault(str(path.with_suffix("")), []).append(name)
    for name, count in collections.Counter(names).items():
        if count > 1:
            raise UserError(f'the data set lists "{name}" more than once: leave one of them')
    stems = {}
    for stem, owners in shortened.items():
        for name in owners:
            stems[name] = stem if len(owners) == 1 else str(PurePosixPath(name))
    by_stem = {stem: name for name, stem in stems.items()}
    for name, stem in stems.items():
        if by_stem[stem] != name:
            raise UserError(
                f'the results of "{name}" and "{by_stem[stem]}" would have the same file name: '
                "rename one of them"
            )
    return stems


def _fitting(workdir: Path, stem: str) -> str:
    """The stem, or a short one with a hash of it where the file system has no room for stem.png."""
    longest = os.pathconf(workdir, "PC_NAME_MAX") if hasattr(os, "pathconf") else 255
    longest_path = 4000 - len(os.path.realpath(workdir))
    data = os.fsencode(stem)
    name = data.rpartition(b"/")[2]
    if len(name) + len(".png") <= longest and len(data) <= longest_path:
        return stem
    return f"{os.fsdecode(name)[:24]}~{hashlib.blake2b(data, digest_size=8).hexdigest()}"


def _number(value: Any) -> float | None:
    """A float32's shortest decimal; None for None, NaN and infinities."""
    if value is None or not math.isfinite(value):
        return None
    return float(str(np.float32(value)))


def _trim_curve(curve: np.ndarray) -> list[float | None]:
    curve = np.asarray(curve, np.float64)
    known = np.flatnonzero(~np.isnan(curve))
    return [_number(y) for y in curve[: known[-1] + 1 if known.size else 0]]
