"""Numbers and pictures of a training on disk: JSONL, TensorBoard, PNG."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image
from tensorboardX import SummaryWriter

_FILE = "metrics.jsonl"


class MetricWriter:
    """Writes to `workdir/metrics.jsonl`, `workdir/tensorboard/` and `workdir/pictures/`.

    A restart at `step` drops the lines that an earlier run wrote beyond it.

    Args:
        workdir: an existing directory.
        step: the step that the run starts at.
    """

    def __init__(self, workdir: Path, step: int):
        self._workdir = workdir
        kept = lines_until(workdir, step)
        self._file = (workdir / _FILE).open("w")
        self._file.writelines(f"{line}\n" for line in kept)
        self._file.flush()
        self._board = SummaryWriter(str(workdir / "tensorboard"), purge_step=step + 1)
        (workdir / "pictures").mkdir(exist_ok=True)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Writes one line of numbers."""
        line = json.dumps({"step": step, **{k: float(v) for k, v in values.items()}})
        self._file.write(f"{line}\n")
        self._file.flush()
        for name, value in values.items():
            self._board.add_scalar(name, float(value), step)

    def picture(self, step: int, rows: list[np.ndarray]) -> None:
        """Writes rows of images, each float [N, H, W, 3] in [0, 1], as one PNG."""
        grid = np.concatenate([np.concatenate(list(row), axis=1) for row in rows], axis=0)
        grid = np.round(np.clip(grid, 0, 1) * 255).astype(np.uint8)
        Image.fromarray(grid).save(self._workdir / "pictures" / f"step_{step:07d}.png")
        self._board.add_image("pictures", grid, step, dataformats="HWC")

    def close(self) -> None:
        """Flushes and closes the files."""
        self._file.close()
        self._board.close()


def lines_until(workdir: Path, step: int) -> list[str]:
    """The lines of numbers up to a step."""
    path = workdir / _FILE
    lines = path.read_text().splitlines() if path.exists() else []
    return [line for line in lines if _step_of(line) <= step]


def _step_of(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):  # a line that a kill tore
        return float("inf")
