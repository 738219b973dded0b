"""The result of an explanation: arrays in memory, and the same on disk."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diffcf_jax.counterfactual.types import Counterfactual, Stop
from diffcf_jax.data.record import Record
from diffcf_jax.errors import UserError
from diffcf_jax.files import read_image, to_uint8
from diffcf_jax.report.html import write_report
from diffcf_jax.report.notebook import inline
from diffcf_jax.report.sheet import sheet
from diffcf_jax.results.log import (
    image_path,
    order_of,
    read_codes,
    read_results,
    write_results,
)
from diffcf_jax.results.summary import environment, read_summary, summarise, write_summary
from diffcf_jax.results.workdir import check_config
from diffcf_jax.results.writer import ResultWriter
from diffcf_jax.target import Range, Target, parse_target, plain
from diffcf_jax.units import Unit
from diffcf_jax.workdir import locked, write_config

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure


@dataclasses.dataclass(frozen=True, eq=False)
class Explanation:
    """Counterfactuals of B images; every value is in the regressor's unit.

    Where a method gives several answers for an image and target, each is one of the B, after the
    one before it.

    Attributes:
        names: of the images, B of them.
        input: [B, H, W, 3] float32 in [0, 1], the images that were explained.
        target: [B] float32, the values that the counterfactuals were to reach; where not all were
            numbers an array of objects: numbers, `Range`s, "min" and "max".
        answer: [B] int32, which answer for its image and target each is, from 1.
        image: [B, H, W, 3] in [0, 1], the counterfactuals, exactly as they are saved.
        reconstruction: [B, H, W, 3] in [0, 1], what the generator makes of the unchanged inputs.
        y_initial: [B] float32, predictions for the inputs.
        y_reconstruction: [B] float32, predictions for the reconstructions.
        y_final: [B] float32, predictions for the counterfactuals.
        success: [B] bool, |y_final - target| <= threshold, or y_final lies in the range; never
            for "min" and "max".
        reason: for each image why it did not succeed, one sentence; None where it did.
        iterations: [B] int32, optimisation steps.
        seconds: [B] float32, each image's share of the time of the steps.
        curve: [B, largest number of iterations] float32, the prediction that each step saw; NaN
            after the last one.
        mask: [B, H, W, 1], 1 where the method, or a mask, kept the input; else 0. None in an
            explanation that was loaded, since it is not saved.
        codes: [B, 2, D] float32, the semantic codes of the inputs and of the counterfactuals (of
            the hybrid: of what was set into the inputs); None for a method without.
        config: the method's options, the unit, the seed, as plain values.
    """

    names: tuple[str, ...]
    input: np.ndarray
    target: np.ndarray
    answer: np.ndarray
    image: np.ndarray
    reconstruction: np.ndarray
    y_initial: np.ndarray
    y_reconstruction: np.ndarray
    y_final: np.ndarray
    success: np.ndarray
    reason: tuple[str | None, ...]
    iterations: np.ndarray
    seconds: np.ndarray
    curve: np.ndarray
    mask: np.ndarray | None
    codes: np.ndarray | None
    config: Mapping[str, Any]

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        size = self.input.shape[1]
        return (
            f"Explanation({len(self)} images of {size} pixels, {int(self.success.sum())} reach "
            f"their target)"
        )

    def save(self, folder: str | Path) -> Path:
        """Write the folder that `explain.py` writes, without its report.

        It then holds results.jsonl, summary.json, summary.csv, config.json and the images in
        input/, reconstruction/, cf/ and heatmap/. Results that the folder holds of the same
        config stay; those of the same names and targets are replaced.

        Args:
            folder: made where it does not exist.

        Returns:
            The folder.

        Raises:
            UserError: the folder cannot be written, or holds results of another config.
        """
        folder = Path(folder).expanduser()
        config = {**self.config, "data": {"name": "arrays"}, "targets": ""}
        with locked(folder):
            check_config(folder, config)
            write_config(folder, config)
            before = read_results(folder) if (folder / "results.jsonl").exists() else []
            names = list(dict.fromkeys([*(row["name"] for row in before), *self.names]))
            ids = {name: id for id, name in enumerate(names)}
            with ResultWriter(folder, names, several_targets=True) as writer:
                for i, name in enumerate(self.names):
                    self._save_one(writer, i, ids[name])
            rows = read_results(folder)
            write_results(folder, rows)
            summary = summarise(rows, config, float(self.seconds.sum()), environment())
            write_summary(folder, summary)
        return folder

    def report(self, folder: str | Path) -> Path:
        """Save to a folder and write its report.html, one page that opens offline.

        Returns:
            The path of the page.

        Raises:
            UserError: see `save`.
        """
        return write_report(self.save(folder))

    @classmethod
    def load(cls, folder: str | Path) -> "Explanation":
        """Read what `save` or `explain.py` wrote; inputs that could not be explained are left out.

        Raises:
            UserError: the folder holds no results, or a file is missing or broken.
        """
        folder = Path(folder).expanduser()
        rows = [row for row in read_results(folder) if "error" not in row]
        if not rows:
            raise UserError(f"{folder} holds no explained image.")
        rows.sort(key=order_of)

        def images(key: str) -> np.ndarray:
            # As `quantize` has them: XLA and numpy divide differently in the last bit.
            table = (np.arange(256) / 255).astype(np.float32)
            return np.stack([table[read_image(image_path(folder, row, key))] for row in rows])

        def numbers(key: str) -> np.ndarray:
            values = [np.nan if row[key] is None else row[key] for row in rows]
            return np.asarray(values, np.float32)

        curves = [np.asarray([np.nan if y is None else y for y in row["curve"]]) for row in rows]
        curve = np.full((len(rows), max(map(len, curves))), np.nan, np.float32)
        for i, values in enumerate(curves):
            curve[i, : len(values)] = values
        return cls(
            names=tuple(row["name"] for row in rows),
            input=images("input"),
            target=_targets(row["target"] for row in rows),
            answer=np.asarray([row["answer"] for row in rows], np.int32),
            image=images("cf"),
            reconstruction=images("reconstruction"),
            y_initial=numbers("y_initial"),
            y_reconstruction=numbers("y_reconstruction"),
            y_final=numbers("y_final"),
            success=np.asarray([row["success"] for row in rows]),
            reason=tuple(row["reason"] for row in rows),
            iterations=np.asarray([row["iterations"] for row in rows], np.int32),
            seconds=numbers("seconds"),
            curve=curve,
            mask=None,
            codes=_codes(folder, rows),
            config=read_summary(folder)["config"],
        )

    def to_dataframe(self) -> "pandas.DataFrame":
        """Return one row per result: name, target, the predictions, success, reason, cost.

        Raises:
            UserError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError:
            raise UserError("to_dataframe needs pandas: pip install 'diffcf_jax[plot]'.") from None
        columns = ("y_initial", "y_reconstruction", "y_final", "success", "reason", "iterations")
        return pandas.DataFrame(
            {"name": self.names, "target": [plain(t) for t in self.target]}
            | {column: list(getattr(self, column)) for column in (*columns, "seconds")}
        )

    def plot(self, name: str | None = None) -> "Figure":
        """Draw all results of an image on one sheet, as `diffcf figure` does.

        Args:
            name: of the image; None: the first one.

        Returns:
            A matplotlib figure, which notebooks show and `savefig` writes.

        Raises:
            UserError: there is no such image; matplotlib is not installed.
        """
        name = self.names[0] if name is None else name
        rows = [row for row in self._rows() if row["name"] == name]
        if not rows:
            raise UserError(f"This explanation has no image {name}: use one of its names.")
        images = {"input": self.input, "reconstruction": self.reconstruction, "cf": self.image}
        return sheet(
            rows,
            lambda row, key: to_uint8(images[key][row["index"]], name),
            self.config["regressor"]["unit"],
        )

    def _repr_html_(self) -> str:
        """What a notebook shows: the first results with their images."""
        return inline(self._rows(), self.input, self.image, repr(self))

    def _rows(self) -> list[dict[str, Any]]:
        """The results as results.jsonl has them, without files, with their `index`."""
        predictions = ("y_initial", "y_reconstruction", "y_final")
        return [
            {
                "index": i, "id": i, "name": name, "target": plain(self.target[i]),
                "answer": int(self.answer[i]),
                "success": bool(self.success[i]), "reason": self.reason[i],
                **{key: float(getattr(self, key)[i]) for key in predictions},
            }
            for i, name in enumerate(self.names)
        ]  # fmt: skip

    def _save_one(self, writer: ResultWriter, i: int, id: int) -> None:
        name, target, answer = self.names[i], self.target[i], int(self.answer[i])
        found = Counterfactual(
            image=self.image[i],
            reconstruction=self.reconstruction[i],
            y_initial=self.y_initial[i],
            y_reconstruction=self.y_reconstruction[i],
            y_final=self.y_final[i],
            success=self.success[i],
            stop=None,
            iterations=self.iterations[i],
            curve=self.curve[i],
            mask=None,
            codes=None if self.codes is None else self.codes[i],
        )
        if not is_finite(found):
            writer.save_error(id, name, target, self.reason[i] or not_finite(name), answer)
            return
        record, unit = (
            Record(id, name, to_uint8(self.input[i], name)),
            self.config["regressor"]["unit"],
        )
        seconds, reason = float(self.seconds[i]), self.reason[i]
        writer.save(record, target, found, seconds, reason, unit, answer=answer)


def _codes(folder: Path, rows: Sequence[Mapping[str, Any]]) -> np.ndarray | None:
    if any("codes" not in row for row in rows):
        return None
    return np.stack([read_codes(folder, row) for row in rows])


def _targets(found: Iterable[float | str]) -> np.ndarray:
    """What `check_targets` returned, from JSON."""
    targets = [parse_target(t) if isinstance(t, str) else t for t in found]
    if not any(isinstance(target, Range | str) for target in targets):
        return np.asarray(targets, np.float32)
    objects = np.empty(len(targets), object)
    objects[:] = targets
    return objects


def stop_reason(
    found: Counterfactual, target: Target, threshold: float, unit: Unit, answer: int = 1
) -> str | None:
    """Why a search did not succeed, one sentence; None if it did.

    Args:
        found: the result of one image, in the regressor's unit.
        target: of the search, in that unit.
        threshold: in that unit.
        unit: named in the sentence.
        answer: which one it is.
    """
    if found.success:
        return None
    steps = f"after {int(found.iterations)} iterations"
    if found.stop == Stop.PREDICTION:
        return f"the regressor's prediction is not finite {steps}"
    if found.stop == Stop.GRADIENT:
        return f"the gradient of the regressor is not finite {steps}"
    if found.stop == Stop.FLAT and answer > 1:
        return f"nothing that earlier answers left unchanged moves the prediction {steps}"
    if found.stop == Stop.FLAT:
        return (
            f"the gradient of the regressor is zero {steps}: it is flat there, or rounds what it "
            "returns"
        )
    name = f" {unit.name}" if unit.name else ""
    if found.stop == Stop.STALLED:
        return f"stalled at {float(found.y_final):.4g}{name} {steps}"
    if isinstance(target, str):
        return f"at {float(found.y_final):.4g}{name} {steps}, which used them up"
    if isinstance(target, Range):
        return f"the saved image lies outside of {target}{name} {steps}"
    return f"the saved image misses the target by more than {threshold:g}{name} {steps}"


def not_finite(name: str) -> str:
    """What is said of an image whose result cannot be saved."""
    return f"{name} leads to a value that is not finite."


def is_finite(found: Any) -> bool:
    """Whether a result can be saved: its images and predictions are finite."""
    values = (found.image, found.reconstruction, found.y_final, found.y_initial)
    return all(np.isfinite(value).all() for value in values)
