"""Checks the package against recorded vectors of the PyTorch originals.

    diffcf parity DIR [DIR ...] [--x64]
    python -m eval.parity DIR [DIR ...] [--x64]                       (the same in a clone)

Prints a row for every quantity of every folder. The exit status is 1 if a row fails, a stored
array has no counterpart, or a folder cannot be interpreted. Files among the folders, as a shell's
`*` gives them, are named and passed over.
"""

import functools
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import jax
from absl import flags

from diffcf_jax import cli, shipped

from . import (
    ac_re,
    ac_re_terms,
    diffae_re,
    diffusion,
    formats,
    oracles,
    regressors,
    squares,
    unet,
)
from .golden import Check, Golden, Row

# By config.json's "kind", and by the folder's name where that is unknown.
CHECKS: dict[str, tuple[str, Check]] = {
    "guided_diffusion.UNetModel": ("unet", unet.check),
    "guided_diffusion SpacedDiffusion": ("diffusion", diffusion.check_ddpm),
    "Diff-AE SpacedDiffusionBeatGans (ddim)": ("ddim", diffusion.check_ddim),
    "AC-RE": ("acre", ac_re.check),
    "AC-RE distance terms and projection": ("acre_terms", ac_re_terms.check_terms),
    "core.utils.generate_mask": ("mask", ac_re_terms.check_mask),
    "Diff-AE BeatGANsAutoencModel": ("diffae", diffae_re.check),
    "densenet": ("densenet", regressors.check),
    "resnet": ("resnet", regressors.check),
    "eval_utils.resnet50_facevgg2_FVA ResNet(Bottleneck), include_top False; AceFVA": (
        "fva",
        oracles.check_fva,
    ),
    "OracleResnet (Resnet50_ft_dag) in a Normalizer, AceMNAC": ("mnac", oracles.check_mnac),
    "squares": ("squares", squares.check),
    "checkpoint formats": ("ckpt_formats", formats.check),
}


def _define(values: flags.FlagValues) -> None:
    flags.DEFINE_bool("x64", False, "Compute and compare in float64.", flag_values=values)


def _compare(args: flags.FlagValues, arguments: list[str]) -> int:
    paths = [Path(argument).expanduser() for argument in arguments]
    for file in filter(Path.is_file, paths):
        print(f"{file}: a file, passed over")
    folders = [path for path in paths if not path.is_file()]
    if not folders:
        print("no folder to compare")
        return 1
    failures = 0
    for folder in folders:
        start = time.perf_counter()
        with jax.enable_x64(args.x64):
            rows = compare_folder(folder, args.x64)
        failed = sum(not row.passed for row in rows)
        failures += failed
        print(format_rows(rows))
        print(
            f"{folder}: {len(rows) - failed} of {len(rows)} passed "
            f"({'float64' if args.x64 else 'float32'}, {time.perf_counter() - start:.0f} s)\n",
            flush=True,
        )
    print("all passed" if not failures else f"{failures} FAILED")
    return 1 if failures else 0


def compare_folder(folder: Path, x64: bool) -> list[Row]:
    """Compares everything in a folder; a folder that cannot be interpreted is a failed row.

    Args:
        folder: with config.json and io.npz.
        x64: compare in float64; needs `jax.enable_x64(True)` around the call.
    """
    try:
        golden = Golden(folder, x64)
    except Exception as error:  # whatever is wrong with the files
        why = f"unreadable: {type(error).__name__}: {error}"
        return [Row(str(folder), float("nan"), float("nan"), why, False)]
    check = find_check(golden)
    if check is None:
        golden.fail(str(golden.config.get("kind")), "unknown kind")
        return golden.finish()
    try:
        check(golden)
    except Exception as error:  # the other folders are still to be compared
        golden.fail("-", f"stopped by {type(error).__name__}: {error}")
    return golden.finish()


def find_check(golden: Golden) -> Check | None:
    """The function for a folder, by its config's kind, else by the beginning of its name."""
    kind, name = golden.config.get("kind"), golden.folder.resolve().name
    if kind in CHECKS:
        return CHECKS[kind][1]
    fitting = [(p, check) for p, check in CHECKS.values() if name.startswith(p)]
    return max(fitting, key=lambda pair: len(pair[0]))[1] if fitting else None


def format_rows(rows: Sequence[Row]) -> str:
    """The rows as a table."""
    width = max([len("quantity"), *(len(row.name) for row in rows)])
    lines = [f"{'quantity':<{width}}  {'max error':>9}  {'relative':>9}  tolerance"]
    for row in rows:
        verdict = "pass" if row.passed else "FAIL"
        lines.append(
            f"{row.name:<{width}}  {row.max_error:9.1e}  {row.relative_error:9.1e}  "
            f"{row.tolerance:<20} {verdict}"
        )
    return "\n".join(lines)


main = cli.Command(
    program=functools.partial(shipped.command, "parity"),
    about="Compares the package with recorded vectors of the PyTorch originals.",
    run=_compare,
    define=_define,
    arguments=("DIR", "..."),
)

if __name__ == "__main__":
    sys.exit(main())
