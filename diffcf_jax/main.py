"""The command `diffcf`: one name in front of everything that this package does.

    diffcf explain --config squares_diffae --workdir out

In a clone, `python explain.py`, `python train.py` and `python -m eval.metrics` do the same as
`diffcf explain`, `diffcf train` and `diffcf evaluate`.
"""

import difflib
import functools
import importlib
import importlib.metadata
import sys
from collections.abc import Sequence

from absl import flags

from diffcf_jax import cli, shipped
from diffcf_jax.errors import UserError

# Name -> its module, where that is imported only when it is asked for, and a sentence.
_COMMANDS = {
    "explain": ("diffcf_jax.main:explain", "Explain images: search counterfactuals for them."),
    "train": ("diffcf_jax.main:train", "Train a generator, a regressor or an oracle."),
    "evaluate": ("diffcf_jax.eval.metrics.__main__:main", "Measure the results of a finished run."),
    "report": ("diffcf_jax.report.command:report", "Write the report of a finished run anew."),
    "figure": ("diffcf_jax.report.command:figure", "Draw figures and animations of a run."),
    "compare": ("diffcf_jax.eval.metrics.compare:main", "Compare measured runs, image by image."),
    "audit": ("diffcf_jax.eval.audit.__main__:main", "Find what else a regressor reads."),
    "ablate": ("diffcf_jax.eval.protocols.ablate:main", "Try other values of a config's keys."),
    "paper": ("diffcf_jax.eval.protocols.paper:main", "Reproduce a table of the paper."),
    "check-regressor": (
        "diffcf_jax.regressors.command:main",
        "Check how a regressor of any format is read.",
    ),
    "diagnose": ("diffcf_jax.eval.diagnose.__main__:main", "Choose a method's options by tables."),
    "fetch": (
        "diffcf_jax.fetch.__main__:main",
        "Fetch public faces and regressors of their ages.",
    ),
    "geometry": (
        "diffcf_jax.eval.geometry.__main__:main",
        "Measure the tangent space and nearest points of a Diff-AE-RE run.",
    ),
    "convert": ("diffcf_jax.checkpoint.convert:main", "Import a PyTorch original's checkpoint."),
    "export": ("diffcf_jax.checkpoint.export:main", "Export weights with the originals' keys."),
    "parity": ("diffcf_jax.eval.parity.__main__:main", "Compare with recorded original numbers."),
}


@cli.end_with_reader
def main(argv: Sequence[str] | None = None) -> int:
    """Runs `diffcf`; returns its exit status."""
    name, *rest = (sys.argv[1:] if argv is None else list(argv)) or ["help"]
    if name in ("help", "--help", "-h"):
        print(_page())
        return 0
    if name == "--version":
        print(f"diffcf_jax {importlib.metadata.version('diffcf_jax')}")
        return 0
    if name not in _COMMANDS:
        near = difflib.get_close_matches(name, _COMMANDS, 1)
        remedy = f"did you mean {near[0]}?" if near else f"use one of {', '.join(_COMMANDS)}."
        print(f"error: diffcf has no command {name}: {remedy}", file=sys.stderr)
        return 2
    module, function = _COMMANDS[name][0].split(":")
    return getattr(importlib.import_module(module), function)(rest)


def _page() -> str:
    lines = [f"  {name:<16}{about}" for name, (_, about) in _COMMANDS.items()]
    return "\n".join(
        [
            "usage: diffcf COMMAND [FLAGS]",
            "",
            "Diffusion counterfactuals for image regressors.",
            "",
            "commands:",
            *lines,
            "",
            "`diffcf COMMAND --help` shows its flags. To begin, explain four squares with the",
            "networks that come with the package:",
            "",
            "  diffcf explain --config squares_diffae --workdir out --config.data.limit=4",
        ]
    )


def _define_explain(values: flags.FlagValues) -> None:
    cli.define_path(values, "workdir", "The folder for results, images and the report.")
    flags.DEFINE_bool(
        "start_over", False, "Remove the results that the workdir holds before anything else.",
        flag_values=values,
    )  # fmt: skip
    flags.DEFINE_bool(
        "compile_only", False,
        "Compile for --topology, print the expected memory and speed, and exit.",
        flag_values=values,
    )  # fmt: skip
    flags.DEFINE_string(
        "topology", "v5e:2x4", "A TPU pod for --compile_only, such as v5e:16x16.",
        flag_values=values,
    )  # fmt: skip


def _explain(args: flags.FlagValues, _: list[str]) -> None:
    import jax

    from diffcf_jax import parallel
    from diffcf_jax.run import run

    config = args.config.to_dict()
    if args.compile_only:
        from diffcf_jax.eval.aot import compile_for

        # Without the chips, programs can be put into the cache but not taken from it.
        jax.config.update("jax_enable_compilation_cache", False)
        print(compile_for(args.topology, **config))
        return
    if not args.workdir:
        raise UserError(
            f"{shipped.command('explain')} needs --workdir: the folder for results and report."
        )
    parallel.share_cpu(config.get("batch_size", "auto"))
    parallel.initialize()
    report, errors = run(args.workdir, **config, from_scratch=args.start_over)
    if parallel.process_index() == 0:
        print(f"The report is {report.resolve()}")
    if errors:
        raise UserError(f"{len(errors)} images could not be explained; the first: {errors[0]}")


def _define_train(values: flags.FlagValues) -> None:
    cli.define_path(values, "workdir", "The folder for checkpoints, metrics and pictures.")


def _train(args: flags.FlagValues, _: list[str]) -> None:
    from diffcf_jax import parallel
    from diffcf_jax.training.config import TrainConfig
    from diffcf_jax.training.loop import train

    cli.keep_memory()
    parallel.initialize()
    summary = train(args.workdir, TrainConfig.from_dict(args.config.to_dict()))
    if parallel.process_index() == 0:
        print(summary)


explain = cli.Command(
    program=functools.partial(shipped.command, "explain"),
    about="""Explains images: searches the most similar image in which the regressor reads a target.

--config.targets takes numbers (20,60), ranges (40..50), min and max. --config.data.masks=FOLDER or
--config.data.mask=x0,y0,x1,y1 keeps an image as it is outside of a mask.

A run that ends early, by SIGTERM (exit status 75) or otherwise, continues when the same command is
given again. The same command on every host of a pod or cluster shares the work.""",
    run=_explain,
    define=_define_explain,
    config="What to explain, and how.",
    required=("config",),
)

train = cli.Command(
    program=functools.partial(shipped.command, "train"),
    about="""Trains a generator, a regressor or an oracle.

A run that is killed, or stopped by SIGTERM (exit status 75), continues when the same command is
given again. The same command on every host of a pod or cluster shares the work.""",
    run=_train,
    define=_define_train,
    config="What to train, and how.",
    required=("config", "workdir"),
)


if __name__ == "__main__":
    sys.exit(main())
