"""What the numbers of a direction say, by a rule and in plain sentences."""

from collections.abc import Mapping
from typing import Any

from diffcf_jax.report.numbers import with_unit
from diffcf_jax.results.statistics import Interval

LEVEL = 0.05  # of Holm's adjusted p-values
_SHARE = 0.5  # of the effect that the oracle must miss
_ALSO = 0.5  # of the attribute's own move, or of a standard deviation: others that moved as well

# Verdict -> what it is called on the page
VERDICTS = {
    "flagged": "flagged: no oracle follows",
    "disputed": "oracles disagree",
    "unjudged": "no oracle to compare with",
    "followed": "the oracle follows",
    "still": "does not move the prediction",
}


def judge(row: Mapping[str, Any], smallest: float) -> str:
    """The verdict, a key of `VERDICTS`.

    A direction moves the prediction if its p-value, adjusted by Holm, is below 0.05, and its mean
    effect is larger than the smallest effect of interest and than what a random edit of the same
    size does on average, in either direction. An oracle does not follow if the interval of the gap
    excludes 0 and the gap is at least half of the effect.

    Args:
        row: of `effects.summarise`, with `p_holm` in its `effect`.
        smallest: effect of interest, in the label's unit.
    """
    if not moves_prediction(row, smallest):
        return "still"
    effect = row["effect"]["mean"]
    missed = [_misses(effect, oracle["gap"]) for oracle in row["oracles"].values()]
    if not missed:
        return "unjudged"
    if all(missed):
        return "flagged"
    return "disputed" if any(missed) else "followed"


def moves_prediction(row: Mapping[str, Any], smallest: float) -> bool:
    """See `judge`."""
    effect = row["effect"]
    if effect["mean"] is None or effect["p_holm"] is None:
        return False
    beyond = max(smallest, row["sham_size"]["mean"])
    return effect["p_holm"] < LEVEL and abs(effect["mean"]) > beyond


def rank(row: Mapping[str, Any]) -> tuple[int, float]:
    """Flagged rows first, by their smallest gap, then the others by their effect."""
    if row["verdict"] == "flagged":
        return 0, -min(abs(oracle["gap"]["mean"]) for oracle in row["oracles"].values())
    return 1, -abs(row["effect"]["mean"] or 0.0)


def moved_too(row: Mapping[str, Any]) -> list[str]:
    """Other attributes that moved with a direction: at least half as far as its own.

    Where the direction is no attribute's: by half a standard deviation or more. Their intervals
    exclude 0.
    """
    own = row["moved"].get(row["name"]) if row["source"] == "attribute" else None
    least = _ALSO * (abs(own["mean"]) if own else 1)
    return [
        name
        for name, move in row["moved"].items()
        if move is not own and _excludes_zero(move) and abs(move["mean"]) >= least
    ]


def sentence(row: Mapping[str, Any], smallest: float, unit: str | None, digits: int) -> str:
    """What was found of a direction, in plain words."""

    def text(value: float) -> str:
        return with_unit(f"{abs(value):.{digits}f}", unit)

    effect = row["effect"]
    if effect["mean"] is None:
        return "The prediction is not finite."
    verb = "adds" if effect["mean"] >= 0 else "takes away"
    between = ""
    if effect["low"] is not None:
        between = f" (95% interval {effect['low']:.{digits}f} to {effect['high']:.{digits}f})"
    found = f"A step {verb} {text(effect['mean'])}{between}, beyond a random edit of the same size"
    verdict = row["verdict"]
    if verdict == "still":
        return f"{found}: {_why_not(row, smallest, text)}."
    if verdict == "unjudged":
        return f"{found}. It moves the prediction, and there is no oracle to compare with."
    judged = []
    for name, oracle in row["oracles"].items():
        seen, gap = oracle["effect"]["mean"], oracle["gap"]
        share = seen / effect["mean"]
        if _misses(effect["mean"], gap):
            judged.append(
                f"{name} does not follow: it changes by {seen:.{digits}f}, and the gap is "
                f"{text(gap['mean'])}"
            )
        else:
            judged.append(f"{name} follows with {share:.0%} of it")
    return f"{found}. " + "; ".join(judged).capitalize() + "."


def _why_not(row: Mapping[str, Any], smallest: float, text: Any) -> str:
    effect, size = abs(row["effect"]["mean"]), row["sham_size"]["mean"]
    if effect <= smallest:
        return f"no more than the smallest effect of interest, {text(smallest)}"
    if effect <= size:
        return f"no more than a random edit changes it either way, {text(size)}"
    return f"this may be chance, p = {row['effect']['p_holm']:.2g} after Holm's correction"


def _misses(effect: float, gap: Interval) -> bool:
    """Whether an oracle does not follow an effect."""
    same = gap["mean"] is not None and gap["mean"] * effect > 0
    return same and _excludes_zero(gap) and abs(gap["mean"]) >= _SHARE * abs(effect)


def _excludes_zero(interval: Interval) -> bool:
    low, high = interval["low"], interval["high"]
    return low is not None and high is not None and (low > 0 or high < 0)
