"""Metrics of a finished run, measured on the saved PNG files.

    diffcf evaluate OUT [--suite full] [--weights DIR] [--oracles A,B] [--axioms N]
    diffcf evaluate OUT [--suite full] [--weights DIR] [--oracles A,B] [--train FOLDER]
    python -m eval.metrics --results OUT                              (the same in a clone)

prints a table, writes OUT/metrics.json, OUT/metrics.csv and OUT/metrics_of_results.csv, and renews
OUT/report.html, which then shows them. What is measured is what the user gets: the networks see the
images as they were saved, not as they were in memory. `eval/metrics/metric.py` lists all metrics
with their definitions.

The oracle is a second regressor, trained independently; each of several has metrics of its own,
which begin with its name. Errors are in the label's unit, which the config of the run or the
checkpoint names. To a range they are 0 inside and else the distance to the
nearer end; the targets min and max are in no mean of success or error. Inputs that could not be
explained are in none of the means; results that did not succeed are in all of them.

--suite=full adds how the regressor reacts to small changes, distances between the sets of images,
and a control: all metrics of a plain attack on the pixels with as many gradients. --axioms=N
explains the first N images twelve times more: null edits, back to the first reading, another seed.
"""

import functools
import sys

from absl import flags

from diffcf_jax import cli, shipped
from diffcf_jax.report.html import write_report
from diffcf_jax.results.summary import read_summary

from .evaluate import RESULTS_CSV, SUITES, evaluate, format_table
from .nearest import in_words
from .trackers import check_trackers, log_to, pictures_of


def _define(values: flags.FlagValues) -> None:
    cli.define_path(values, "results", "OUT, the folder of a finished run, its --workdir.")
    flags.DEFINE_enum(
        "suite", "paper", SUITES, "The paper's metrics, or all of them.", flag_values=values
    )
    cli.define_path(values, "weights", "A folder with the networks of further metrics.")
    cli.define_path(values, "train", "The generator's training images: does it repeat them?")
    cli.define_path(values, "regressor", "A regressor; without it, the one in the run's config.")
    cli.define_path(
        values, "oracle", "A regressor; without it, the one in the run's config, if any."
    )
    flags.DEFINE_string(
        "oracles", None, "More of them, a,b; without it, those in the run's config.",
        flag_values=values,
    )  # fmt: skip
    flags.DEFINE_integer(
        "axioms", 0, "Explain so many images again, for composition, reversibility, another seed.",
        0, flag_values=values,
    )  # fmt: skip
    flags.DEFINE_list(
        "log_to", [], "tensorboard, wandb, mlflow: where numbers and pictures go too.",
        flag_values=values,
    )  # fmt: skip


def _evaluate(args: flags.FlagValues, _: list[str]) -> None:
    check_trackers(args.log_to)
    cli.keep_memory()
    summary = evaluate(
        args.results, args.regressor, args.oracle, args.oracles, args.weights, args.suite,
        args.axioms, args.train,
    )  # fmt: skip
    print(format_table(summary["metrics"], summary.get("control")))
    missing: dict[str, list[str]] = {}
    for name, needs in summary["not_computed"].items():
        missing.setdefault(needs, []).append(name)
    for needs, names in missing.items():
        print(f"not computed: {', '.join(names)}; --weights needs {needs}")
    print(f"{summary['n']} counterfactuals, {summary['errors']} failed inputs")
    for sentence in summary["left_out"]:
        print(f"left out: {sentence}")
    print(
        "the regressor's predictions for the saved images differ from results.jsonl by at most "
        f"{summary['largest_change_of_prediction'] or 0.0:.1e} {summary['unit'] or ''}".rstrip()
    )
    if args.log_to:
        pictures = pictures_of(args.results, summary["threshold"], summary["unit"])
        config = read_summary(args.results)["config"]
    for tracker in args.log_to:
        log_to(tracker, args.results, summary, config, pictures)
    means = {name: interval["mean"] for name, interval in summary["metrics"].items()}
    for sentence in in_words(means, summary["originals"]):
        print(sentence)
    report = write_report(args.results)
    print(f"written: {args.results / 'metrics.json'}, metrics.csv, {RESULTS_CSV} and {report.name}")


main = cli.Command(
    program=functools.partial(shipped.command, "evaluate"),
    about="Measures the saved images of a run; writes metrics.json and metrics.csv beside them, "
    "and renews the report.",
    run=_evaluate,
    define=_define,
    required=("results",),
    operand="results",
)

if __name__ == "__main__":
    sys.exit(main())
