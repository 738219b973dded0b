"""The answer at the top of the report: one sentence, what failed, and what to mind."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from diffcf_jax.report.numbers import percent, with_unit
from diffcf_jax.results.summary import Interval
from diffcf_jax.target import Range, ends, inside

Row = Mapping[str, Any]  # as in results.jsonl, without an error

_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?:e[-+]?\d+)?(?![\w.]*\w)")


def answer(
    rows: Sequence[Row],
    success: Interval,
    oracles: Mapping[str, Interval],
    threshold: float,
    unit: str | None = None,
) -> str:
    """How many reach their target, and how many of them other regressors confirm.

    Args:
        rows: all results.
        success: `bootstrap_mean` of their success.
        oracles: the same as each oracle sees it, by its name.
        threshold: of success.
        unit: of all predictions.
    """
    if not rows:
        return "Nothing was explained."
    what, images = _counted(rows), len({row["name"] for row in rows})
    if success["mean"] is None:
        return f"{what}: the prediction goes as far as it can, to no target that could be reached."
    targets = {row["target"] for row in rows if ends(row["target"])}
    within = f"within {with_unit(f'{threshold:g}', None if len(targets) == 1 else unit)}"
    if len(targets) > 1:
        goal = f"their target {within}"
    elif isinstance(target := targets.pop(), str):
        goal = with_unit(target, unit)
    else:
        goal = f"{with_unit(f'{target:g}', unit)} {within}"
    share = "None" if success["mean"] == 0 else percent(success["mean"])
    verb = "reach" if len(rows) > 1 else "reaches"
    text = f"{share} of {what} {verb} {goal}{_interval(success, images)}"
    for name, interval in oracles.items():
        if interval["mean"] is not None:
            who = "the oracle" if name == "oracle" else name
            text += f"; {who} agrees in {percent(interval['mean'])}{_interval(interval, images)}"
    return text + "."


def control(metrics: Mapping[str, Interval]) -> str:
    """What a pixel attack scores, so that nobody takes the same of a counterfactual for evidence.

    Args:
        metrics: the attack's, by name; without its success there is nothing to say.
    """
    end = "_success_rate"
    reached = metrics.get("success_rate", {}).get("mean")
    if reached is None:
        return ""
    text = f"Control: a pixel attack with as many gradients reaches {percent(reached)}"
    for name, interval in metrics.items():
        if name.endswith(end) and interval["mean"] is not None:
            who = "the oracle" if name == f"oracle{end}" else name.removesuffix(end)
            text += f"; {who} agrees in {percent(interval['mean'])}"
    return f"{text}. What it does as well proves nothing."


def failures(
    rows: Sequence[Row], reasons: Mapping[str, int], errors: int, unit: str | None = None
) -> str:
    """How many do not, why, the most frequent reason first, and towards which target most often.

    Reasons that differ in their numbers only are one, with the smallest and the largest of each.
    """
    texts = []
    if failed := [row["target"] for row in rows if ends(row["target"]) and not row["success"]]:
        why = "; ".join(f"{n:,} × {reason.rstrip('.')}" for reason, n in _alike(reasons).items())
        texts.append(f"{len(failed):,} {'does' if len(failed) == 1 else 'do'} not: {why}.")
        if any(reason.startswith("stalled") for reason in reasons):
            texts.append("Stalled: more steps brought the prediction no closer.")
        (target, most), tried = Counter(failed).most_common(1)[0], [row["target"] for row in rows]
        if most > 1 and len(set(tried)) > 1:
            goal = with_unit(target if isinstance(target, str) else f"{target:g}", unit)
            texts.append(f"Most often towards {goal}: {most:,} of {tried.count(target):,}.")
    if errors:
        texts.append(f"{errors:,} input{'' if errors == 1 else 's'} could not be explained.")
    return " ".join(texts)


def _alike(reasons: Mapping[str, int]) -> dict[str, int]:
    groups: dict[str, list[str]] = {}
    for reason in reasons:
        groups.setdefault(_NUMBER.sub("#", reason), []).append(reason)
    found = {}
    for group in groups.values():
        columns = iter(zip(*map(_NUMBER.findall, group), strict=True))
        text = _NUMBER.sub(lambda _, columns=columns: _between(next(columns)), group[0])
        found[text] = sum(reasons[reason] for reason in group)
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def _between(numbers: Sequence[str]) -> str:
    """The smallest and the largest, as they were written."""
    low, high = min(numbers, key=float), max(numbers, key=float)
    return low if float(low) == float(high) else f"{low} to {high}"


def notes(rows: Sequence[Row], faults: Sequence[str], labels: Range | None = None) -> list[str]:
    """What a reader has to know before the numbers: damage, and runs that can show little.

    Args:
        rows: all results.
        faults: what is missing or broken, one sentence each.
        labels: the range of the regressor's training labels.
    """
    found = list(faults[:3])
    if len(faults) > 3:
        found.append(f"{len(faults) - 3:,} more files cannot be shown for the like reasons.")
    known = [row["y_final"] for row in rows if row["y_final"] is not None]
    if lost := len(rows) - len(known):
        found.append(f"{lost:,} of {len(rows):,} predictions are not finite: check the regressor.")
    before = [row["y_initial"] for row in rows]
    if len(known) > 1 and len({*known, *before}) == 1:
        found.append(f"All predictions are equal ({known[0]:g}): the regressor reacts to nothing.")
    beyond = {row["target"] for row in rows if labels and inside(row["target"], labels) == 0}
    if beyond:
        found.append(
            f"{', '.join(sorted(map(str, beyond)))}: beyond the training labels, {labels}. The "
            "regressor was never shown such a value."
        )
    if len({row["name"] for row in rows}) == 1:
        found.append("One image was explained: its numbers say nothing about others.")
    return found


def worst(
    rows: Sequence[Row], oracle_errors: Mapping[int, float], threshold: float, most: int = 3
) -> tuple[str, list[tuple[Row, str]]]:
    """What to look at first, and why: the failures, or else where the oracle disagrees most.

    Args:
        rows: worst first.
        oracle_errors: id(row) -> |oracle - target|, of those for which it is known.
        threshold: of success.
        most: rows.

    Returns:
        A title, and the rows with a reason.
    """
    failed = [row for row in rows[:most] if ends(row["target"]) and not row["success"]]
    if failed:
        title = "The worst failure" + ("" if len(failed) == 1 else "s")
        return title, [(row, row["reason"] or "no reason given") for row in failed]
    doubtful = [row for row in rows if oracle_errors.get(id(row), 0.0) > threshold]
    doubtful = sorted(doubtful, key=lambda row: -oracle_errors[id(row)])[:most]
    reasons = [f"The oracle is {oracle_errors[id(row)]:.3g} off the target." for row in doubtful]
    title = "None missed; the oracle disagrees most here"
    return title, list(zip(doubtful, reasons, strict=True))


def _counted(rows: Sequence[Row]) -> str:
    images = len({row["name"] for row in rows})
    of = f"{images:,} image{'' if images == 1 else 's'}"
    if images == len(rows):
        return of
    return f"{len(rows):,} counterfactuals of {of}"


def _interval(interval: Interval, images: int) -> str:
    """The interval as text.

    Where all k images agree, which a bootstrap takes for certainty, it is the exact binomial one,
    0.025^(1/k) to 1.

    Reference: Clopper and Pearson, The use of confidence or fiducial limits, Biometrika 26, 1934.
    """
    low, high = interval["low"], interval["high"]
    if low is None:
        return ""
    if low == high and low in (0, 1):
        bound = 0.025 ** (1 / images)
        low, high = (bound, 1.0) if low else (0.0, 1 - bound)
    return "" if low == high else f" (95% interval {percent(low)} to {percent(high)})"
