"""Images per CPU second of the networks behind metrics, beside torchmetrics' with the same weights.

    python -m eval.speed.metrics [--images 16] [--size 256] [--repeats 4] [--only inception,ssim]

Weights and images are drawn from a seed. Both sides compute the same numbers in turns, each in a
process of its own; the first call of each, which compiles, does not count. Inception and LPIPS are
networks alone; `fid` and `kid` are what follows on 16 times as many features. Where other programs
run, give --threads 1: threads that wait for each other use CPU time, too.

The last lines are the whole suite on a pair: both images through Inception, and everything else
that was measured once. Each of torchmetrics' FID and KID has an Inception of its own, unless they
are made to share it.

Needs PyTorch, torchvision, torchmetrics and torch-fidelity.
"""

import functools
import json
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from diffcf_jax import cli
from diffcf_jax.errors import UserError

from .side import Side

OURS, THEIRS = "diffcf_jax", "torchmetrics"
_MODULES = {THEIRS: f"{__package__}.metrics_torch", OURS: f"{__package__}.metrics_ours"}
# What is measured, and how many images of it --images=1 means: cheap ones need more to be timed
MEASURED = {
    "inception": 1, "lpips": 1, "lpips_vgg": 1, "lpips_squeeze": 1, "ssim": 4, "psnr": 4,
    "fid": 16, "kid": 16,
}  # fmt: skip


def _define(values: flags.FlagValues) -> None:
    define = functools.partial(flags.DEFINE_integer, flag_values=values)
    define("images", 16, "Images per network; pixels are compared on more of them.", lower_bound=1)
    define("size", 256, "Width and height of the images.", lower_bound=32)
    define("repeats", 4, "Timed calls of each side.", lower_bound=1)
    define("threads", 2, "CPU cores to use.", lower_bound=1)
    flags.DEFINE_list("only", [], f"Some of {', '.join(MEASURED)}.", flag_values=values)


def _measure(args: flags.FlagValues, _: list[str]) -> None:
    names = args.only or list(MEASURED)
    if unknown := set(names) - set(MEASURED):
        raise UserError(f"--only={sorted(unknown)[0]} is unknown: use {', '.join(MEASURED)}")
    counts = {name: args.images * MEASURED[name] for name in names}
    with tempfile.TemporaryDirectory() as folder:
        write_job(Path(folder), counts, args.size, args.threads)
        for line in measure(Path(folder), counts, args.repeats):
            print(line, flush=True)


def write_job(folder: Path, counts: Mapping[str, int], size: int, threads: int) -> None:
    """Writes the pairs of images, features for what needs no network, and what is measured."""
    rng = np.random.default_rng(0)
    most = max((n for name, n in counts.items() if name not in ("fid", "kid")), default=1)
    x = rng.integers(0, 256, (most, size, size, 3), np.uint8)
    y = np.clip(x + rng.integers(-20, 21, x.shape), 0, 255).astype(np.uint8)
    features = rng.gamma(0.5, 0.8, (2, max(counts.values()), 2048)).astype(np.float32)
    np.savez(folder / "images.npz", x=x, y=y, features=features)
    (folder / "job.json").write_text(json.dumps({"threads": threads, "counts": dict(counts)}))


def measure(folder: Path, counts: Mapping[str, int], repeats: int) -> Iterator[str]:
    """Yields the lines of a table, each after its measurements.

    Raises:
        UserError: a side fails.
    """
    width = 19  # of the longest name
    yield f"{'':{width}}{'images':>8}{OURS:>14}{THEIRS:>14}{'ours / theirs':>16}{'difference':>13}"
    sides: dict[str, Side] = {}
    try:
        for name, module in _MODULES.items():  # theirs draws the weights, ours converts them
            sides[name] = Side(name, folder, module)
            sides[name].ask("prepare")
        costs = {}
        for name, count in counts.items():
            found: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
            for _ in range(repeats + 1):
                for side, process in sides.items():
                    found[side].append(process.ask(name))
            speeds = [
                count / statistics.median(answer["cpu_seconds"] for answer in found[side][1:])
                for side in (OURS, THEIRS)
            ]
            costs[name] = [1 / speed for speed in speeds]
            a, b = (np.array(found[side][0]["result"]) for side in (OURS, THEIRS))
            difference = np.abs(a - b).max() / np.abs(b).max()
            yield (
                f"{name:{width}}{count:>8}{speeds[0]:>14.3g}{speeds[1]:>14.3g}"
                f"{speeds[0] / speeds[1]:>16.2f}{difference:>13.1e}"
            )
        yield from _suite(costs, width)
    finally:
        for process in sides.values():
            process.close()


def _suite(costs: Mapping[str, Sequence[float]], width: int) -> Iterator[str]:
    """Pairs per CPU second of all that was measured, from the seconds per pair of both sides."""
    networks = {"suite": max(1, len({"fid", "kid"} & set(costs))), "sharing Inception": 1}
    for name, theirs in networks.items():
        passes = np.array((2, 2 * theirs))  # images through Inception per pair
        parts = [passes * cost if key == "inception" else cost for key, cost in costs.items()]
        a, b = 1 / np.sum(parts, axis=0)
        yield f"{name:{width}}{'':>8}{a:>14.3g}{b:>14.3g}{a / b:>16.2f}"


main = cli.Command(
    program="python -m eval.speed.metrics",
    about="Measures images per CPU second of the networks behind metrics, beside torchmetrics'.",
    run=_measure,
    define=_define,
)

if __name__ == "__main__":
    sys.exit(main())
