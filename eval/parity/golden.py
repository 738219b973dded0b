"""A folder of recorded vectors: what was read, what was compared, and what is left over."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array

# Where nothing else is known of a float32 quantity: its error relative to its largest value.
FLOAT32_ERROR = 1e-6
# Two float32 runs may differ by the originals' own error, on either side, and some.
FLOAT32_FACTOR = 3.0
FLOAT64_ERROR = 1e-9
# Constants of a process: recurrences over up to 1000 float64 steps.
CONSTANTS_ERROR = 1e-12
# Rounding of a float64 result that was stored as float32.
STORED_ERROR = 6e-8


@dataclasses.dataclass(frozen=True)
class Row:
    """One compared quantity.

    Attributes:
        name: of the array, with a note in brackets.
        max_error: the largest absolute difference.
        relative_error: the difference's norm over the reference's.
        tolerance: what was allowed, with "abs" or "rel".
        passed: whether it was met.
    """

    name: str
    max_error: float
    relative_error: float
    tolerance: str
    passed: bool


class Golden:
    """The arrays of one folder; each of them has to be taken as an input or compared.

    An array `NAME_f64` is the float64 twin of `NAME`. With `x64` a computed quantity is compared
    with both: within `FLOAT64_ERROR` with the twin and within float32 tolerances with `NAME`.
    Otherwise the twin says how far the original's float32 is from the truth.

    Args:
        folder: with config.json and io.npz.
        x64: compute in float64.
    """

    def __init__(self, folder: Path, x64: bool):
        self.folder = folder
        self.x64 = x64
        self.dtype = jnp.float64 if x64 else jnp.float32
        self.config: dict[str, Any] = json.loads((folder / "config.json").read_text())
        with np.load(folder / "io.npz") as arrays:
            self._arrays = {name: arrays[name] for name in arrays.files}
        self._unused = set(self._arrays)
        self.rows: list[Row] = []

    def __contains__(self, name: str) -> bool:
        return name in self._arrays

    def names(self) -> list[str]:
        """The arrays that are neither taken nor compared yet."""
        return sorted(self._unused)

    def array(self, name: str) -> np.ndarray:
        """Takes an array as it is stored, as an input."""
        self._unused.discard(name)
        return self._arrays[name]

    def real(self, name: str) -> Array:
        """Takes an array as an input in the working precision."""
        return jnp.asarray(self.array(name), self.dtype)

    def images(self, name: str) -> Array:
        """Takes images [..., C, H, W] as an input [..., H, W, C] in the working precision."""
        return nhwc(self.real(name))

    def compare(
        self,
        name: str,
        value: Any,
        f32: float | None = None,
        f64: float = FLOAT64_ERROR,
        allow: float = 0.0,
        note: str = "",
    ) -> None:
        """Compares a computed quantity with `name` and its twin, where they are stored.

        Args:
            name: of the float32 array.
            value: in the layout that is stored.
            f32: the largest difference that the original's own float32 may show; without it,
                `FLOAT32_ERROR` of the largest value.
            f64: the tolerance of the twin, relative to its norm.
            allow: the fraction of float32 values that may differ by more (where the sign of a
                rounding error decides).
            note: what the row's name says besides.
        """
        value = np.asarray(value)
        reference, twin = self._arrays.get(name), self._arrays.get(f"{name}_f64")
        self._unused -= {name, f"{name}_f64"}
        if twin is not None and (self.x64 or reference is None):
            self._compare_f64(name, value, twin, f32, f64, note)
        if reference is None:
            return
        if reference.dtype.kind in "biu":
            self._add(name + note, value, reference, "exact", 0.0)
            return
        scale = _largest(reference)
        own = FLOAT32_ERROR * scale if f32 is None else f32
        if twin is not None and twin.shape == reference.shape:
            own = max(own, _largest(reference.astype(np.float64) - twin))
        self._add(name + note, value, reference, "abs", FLOAT32_FACTOR * own, allow)

    def compare_images(self, name: str, value: Any, **options: Any) -> None:
        """Compares images [..., H, W, C] with `name`, which is [..., C, H, W]."""
        self.compare(name, nchw(np.asarray(value)), **options)

    def compare_constants(self, name: str, value: np.ndarray) -> None:
        """Compares what both sides compute in float64, whatever the working precision."""
        self._unused.discard(name)
        if name in self:
            self._add(name, value, self._arrays[name], "rel", CONSTANTS_ERROR)

    def compare_exactly(self, name: str, value: np.ndarray) -> None:
        """Compares what has to be equal in every bit, whatever its type."""
        self._add(name, value, self.array(name), "exact", 0.0)

    def compare_value(self, name: str, value: Any, reference: Any) -> None:
        """Compares a number or table of config.json, in float64."""
        value, reference = np.asarray(value), np.asarray(reference)
        self._add(f"config: {name}", value, reference, "rel", CONSTANTS_ERROR)

    def fail(self, name: str, why: str) -> None:
        """Adds a row that fails."""
        self.rows.append(Row(name, np.nan, np.nan, why, False))

    def finish(self) -> list[Row]:
        """Returns the rows, one more for each array without a counterpart."""
        for name in self.names():
            self.fail(name, "no counterpart")
        if not self.rows:
            self.fail("-", "nothing to compare")
        return self.rows

    def _compare_f64(
        self,
        name: str,
        value: np.ndarray,
        twin: np.ndarray,
        f32: float | None,
        f64: float,
        note: str,
    ) -> None:
        name = f"{name}_f64{note}"
        if twin.dtype.kind in "biu":
            self._add(name, value, twin, "exact", 0.0)
        elif not self.x64:
            own = FLOAT32_ERROR * _largest(twin) if f32 is None else f32
            self._add(name, value, twin, "abs", FLOAT32_FACTOR * own)
        else:
            stored = STORED_ERROR if twin.dtype == np.float32 else 0.0
            # A twin may hold the first iterations only.
            value = value[: len(twin)] if value.shape[1:] == twin.shape[1:] and twin.ndim else value
            self._add(name, value, twin, "rel", max(f64, stored))

    def _add(
        self,
        name: str,
        value: np.ndarray,
        reference: np.ndarray,
        kind: str,
        tolerance: float,
        allow: float = 0.0,
    ) -> None:
        if value.shape != reference.shape:
            self.fail(name, f"shape {value.shape} for {reference.shape}")
            return
        if not np.array_equal(np.isnan(value), np.isnan(reference)):
            self.fail(name, "NaN in other places")
            return
        difference = np.nan_to_num(value.astype(np.float64) - reference.astype(np.float64))
        norm = np.linalg.norm(np.nan_to_num(reference.astype(np.float64)))
        error = np.linalg.norm(difference)
        relative = error / norm if norm else error
        if kind == "rel":
            passed = relative <= tolerance
        else:
            passed = np.mean(np.abs(difference) > tolerance) <= allow
        text = "exact" if kind == "exact" else f"{kind} {tolerance:.1e}"
        if allow:
            text += f" but {allow:.1%}"
        self.rows.append(Row(name, _largest(difference), float(relative), text, bool(passed)))


def nhwc(x: Any) -> Any:
    """[..., C, H, W] -> [..., H, W, C]."""
    return (np if isinstance(x, np.ndarray) else jnp).moveaxis(x, -3, -1)


def nchw(x: Any) -> Any:
    """[..., H, W, C] -> [..., C, H, W]."""
    return (np if isinstance(x, np.ndarray) else jnp).moveaxis(x, -1, -3)


def prediction_error(y: Any) -> float:
    """What float32 may do to predictions: their errors come from activations of order 1."""
    return FLOAT32_ERROR * max(1.0, _largest(np.asarray(y)))


def loss_error(y: Any, targets: Any) -> float:
    """What float32 may do to a mean squared error: 2 |y - target| times the prediction's error."""
    miss = _largest(np.asarray(y) - np.asarray(targets))
    return FLOAT32_ERROR * miss**2 + 2 * miss * prediction_error(y)


def _largest(x: np.ndarray) -> float:
    return float(np.nanmax(np.abs(x.astype(np.float64)), initial=0.0)) if x.size else 0.0


Check = Callable[[Golden], None]
