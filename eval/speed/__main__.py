"""Measures an iteration, and beside it the PyTorch original's with the same weights and images.

    python -m eval.speed --config configs/squares_acre.py
    python -m eval.speed --config configs/squares_acre.py --originals CHECKOUT --random-weights
    python -m eval.speed --config configs/train/squares_paper.py:ddpm --originals CHECKOUT
    python -m eval.speed --config configs/squares_acre.py --originals CHECKOUT --trained --images 8

CHECKOUT is a clone of https://github.com/DevinTDHa/Diffusion-Counterfactuals-for-Image-Regressors;
its side needs PyTorch and torchvision (the extra `originals`). --random-weights takes networks of
the paper's sizes: a checkpoint that the originals cannot build is no match for them. With a config
of train.py an iteration is an update of the training, in float32. --trained explains squares with
the config's own networks on both sides and compares counterfactuals per hour and their quality.
"""

import functools
import os
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from diffcf_jax import cli
from diffcf_jax.errors import UserError

from . import trained
from .job import write_job, write_training
from .side import SIDES, Side


def _define(values: flags.FlagValues) -> None:
    define_integer = functools.partial(flags.DEFINE_integer, flag_values=values)
    cli.define_path(values, "originals", "A clone of the paper's repository.")
    flags.DEFINE_string("batch", "1,4", "Batch sizes, separated by commas.", flag_values=values)
    define_integer("repeats", 3, "Timed iterations, and whole runs, of each side.", lower_bound=1)
    define_integer("images", 0, "Images of a whole run; 0: none.", lower_bound=0)
    define_integer("threads", os.cpu_count(), "CPU cores to use.", lower_bound=1)
    flags.DEFINE_bool("random_weights", False, "The paper's sizes, untrained.", flag_values=values)
    flags.DEFINE_bool("trained", False, "Whole runs of trained networks.", flag_values=values)
    flags.DEFINE_alias("random-weights", "random_weights", flag_values=values)


def _measure(args: flags.FlagValues, _: list[str]) -> None:
    config = args.config.to_dict()
    if "refiner" in config:
        raise UserError(
            f"The originals have no method {config['method']['name']}: give a config of ac-re or "
            "diffae-re."
        )
    names = list(SIDES) if args.originals else ["diffcf_jax"]
    for batch in _numbers(args.batch):
        if args.trained:
            print(trained.compare(config, batch, args), flush=True)
            continue
        with tempfile.TemporaryDirectory() as folder:
            write = write_job if "method" in config else write_training
            write(Path(folder), config, batch, args)
            found = measure(Path(folder), names, args.repeats, args.images > 0)
        print(table(batch, found), flush=True)


def measure(
    job: Path, names: Sequence[str], repeats: int, whole_run: bool
) -> dict[str, dict[str, Any]]:
    """Runs every side in a process of its own, and in turns one iteration and a timed one of each.

    Whole runs come after that, in turns and as often.

    Returns:
        For each side `seconds` and `cpu_seconds` of each iteration, `compile_seconds` (ready to
        iterate), `peak_bytes` (of the iterations), and of each whole run `each`, seconds a
        counterfactual, and `each_compiled`, the same without compiling.

    Raises:
        UserError: a side fails.
    """
    sides = {name: Side(name, job) for name in names}
    found: dict[str, dict[str, Any]] = {}
    try:
        for name, side in sides.items():
            found[name] = {"compile_seconds": side.ask("prepare")["seconds"], "seconds": []}
            found[name]["cpu_seconds"] = []
        for _ in range(repeats):
            for name, side in sides.items():
                # A side that has waited for the other finds caches and pages of memory gone.
                side.ask("iterate")
                answer = side.ask("iterate")
                found[name]["seconds"].append(answer["seconds"])
                found[name]["cpu_seconds"].append(answer["cpu_seconds"])
        for name, side in sides.items():
            found[name]["peak_bytes"] = side.ask("memory")["result"]
            found[name] |= {"each": [], "each_compiled": []}
        for _ in range(repeats if whole_run else 0):
            for name, side in sides.items():
                run = side.ask("explain")["result"]
                count = len(run["success"])
                found[name]["each"].append(run["seconds"] / count)
                found[name]["each_compiled"].append(
                    (run["seconds"] - run["compile_seconds"]) / count
                )
    finally:
        for side in sides.values():
            side.close()
    return found


def table(batch: int, found: Mapping[str, Mapping[str, Any]]) -> str:
    """Medians with the smallest and largest value, and ratios to the originals."""
    rows: list[tuple[str, str, str]] = []
    ours, theirs = found["diffcf_jax"], found.get("originals")

    def row(label: str, key: str, form: str, scale: float = 1.0) -> None:
        if not ours.get(key):
            return
        cells = [_spread(side[key], form, scale) for side in (ours, theirs) if side]
        ratio = f"{_median(theirs[key]) / _median(ours[key]):.2f}" if theirs else ""
        rows.append((label, "".join(f"{cell:>24}" for cell in cells), ratio))

    row("seconds per iteration", "seconds", ".3f")
    row("CPU seconds per iteration", "cpu_seconds", ".3f")
    row("peak memory, GiB", "peak_bytes", ".2f", 1 / 2**30)
    row("seconds until the first iteration", "compile_seconds", ".1f")
    row("seconds per counterfactual", "each_compiled", ".2f")
    row("the same with compiling", "each", ".2f")
    head = f"{'batch ' + str(batch):34}" + "".join(f"{name:>24}" for name in found)
    lines = [head + ("   theirs / ours" if theirs else "")]
    return "\n".join(lines + [f"{label:34}{cells}   {ratio}" for label, cells, ratio in rows])


def _median(values: float | Sequence[float]) -> float:
    return statistics.median(values) if isinstance(values, list) else values


def _spread(values: float | Sequence[float], form: str, scale: float) -> str:
    text = f"{_median(values) * scale:{form}}"
    if isinstance(values, list) and len(values) > 1:
        text += f" ({min(values) * scale:{form}}-{max(values) * scale:{form}})"
    return text


def _numbers(text: str) -> list[int]:
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 1:
        raise UserError(f"--batch={text} must be whole numbers separated by commas, such as 1,4.")
    return numbers


main = cli.Command(
    program="python -m eval.speed",
    about="Measures seconds per iteration, seconds per counterfactual and memory.",
    run=_measure,
    define=_define,
    config="A config for explaining or for training.",
    required=("config",),
)

if __name__ == "__main__":
    sys.exit(main())
