"""What the numbers of a direction say, by a rule and in plain sentences."""

from collections.abc import Callable, Mapping
from typing import Any

from diffcf_jax.report.numbers import with_unit
from diffcf_jax.results.statistics import Interval

LEVEL = 0.05  # of Holm's adjusted p-values
_SHARE = 0.5  # of the effect that the oracle must miss
_READ = 0.5  # of an attribute's variance that its probe must explain
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

    A direction moves the prediction if its p-value, adjusted by Holm, is below 0.05, its mean
    effect is larger than what a random edit of the same size does on average, in either direction,
    and the effect of the whole attribute, or of a step where that is not known, is larger than the
    smallest effect of interest. An oracle does not follow if the interval of the gap
    excludes 0 and the gap is at least half of the effect.

    Args:
        row: of `effects.summarise`, with `p_holm` in its `effect`, and `effects.whole_effect`.
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
    beyond = abs(effect["mean"]) > row["sham_size"]["mean"] and _interest(row) > smallest
    return effect["p_holm"] < LEVEL and beyond


def rank(row: Mapping[str, Any]) -> tuple[int, float]:
    """Flagged rows first, by their smallest gap, then the others by their effect."""
    if row["verdict"] == "flagged":
        return 0, -min(abs(oracle["gap"]["mean"]) for oracle in row["oracles"].values())
    return 1, -abs(row["effect"]["mean"])


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
        if move is not own and excludes_zero(move) and abs(move["mean"]) >= least
    ]


def is_read(row: Mapping[str, Any]) -> bool:
    """Whether the probe of an attribute knows how far the attribute has moved.

    It explains at least half of the variance in the other half of the images, and the interval of
    the move excludes 0. A weak probe reads too little of a move.
    """
    return row["facts"]["r2"] >= _READ and excludes_zero(row["moved"][row["name"]])


def sentence(row: Mapping[str, Any], smallest: float, unit: str | None, digits: int) -> str:
    """What was found of a direction, in plain words."""

    def signed(value: float) -> str:
        return f"{value:+.{digits}f}".replace("-", "−")

    def between(interval: Interval) -> str:
        if interval["low"] is None:
            return ""
        return f" (95% interval {signed(interval['low'])} to {signed(interval['high'])})"

    effect, name = row["effect"], row["name"]
    found = (
        f"A step along {name} changes the prediction by "
        f"{with_unit(signed(effect['mean']), unit)}{between(effect)}"
    )
    whole = ""
    if row["whole"]:
        whole = f"{row['whole']['per']}, {name} changes it by {signed(row['whole']['mean'])}"
        whole += between(row["whole"])
    if row["verdict"] == "still":
        why = _why_not(row, smallest, lambda x: with_unit(f"{x:.{digits}f}", unit))
        return f"{found}{f', {whole}' if whole else ''}: {why}."
    size = row["sham_size"]["mean"]
    parts = [f"{found}, random edits of the same size by {size:.{digits}f} either way"]
    parts += [whole] if whole else []
    for oracle, seen in row["oracles"].items():
        follows = f"{oracle} follows with {seen['effect']['mean'] / effect['mean']:.0%} of the step"
        if _misses(effect["mean"], seen["gap"]):
            follows = (
                f"{oracle} does not follow: a step changes it by {signed(seen['effect']['mean'])}, "
                f"a gap of {signed(seen['gap']['mean'])}{between(seen['gap'])}"
            )
        parts.append(follows)
    if row["verdict"] == "unjudged":
        parts.append("it moves the prediction, and there is no oracle to compare with")
    return " ".join(f"{part[0].upper()}{part[1:]}." for part in parts)


def _interest(row: Mapping[str, Any]) -> float:
    """Size of the effect that counts: of the whole attribute, or of a step if that is unknown."""
    return abs((row["whole"] or row["effect"])["mean"])


def _why_not(row: Mapping[str, Any], smallest: float, text: Callable[[float], str]) -> str:
    effect, size = abs(row["effect"]["mean"]), row["sham_size"]["mean"]
    if _interest(row) <= smallest:
        return f"no more than the smallest effect of interest, {text(smallest)}"
    if effect <= size:
        return f"no more than a random edit changes it either way, {text(size)}"
    return f"this may be chance, p = {row['effect']['p_holm']:.2g} after Holm's correction"


def _misses(effect: float, gap: Interval) -> bool:
    """Whether an oracle does not follow an effect."""
    same = gap["mean"] is not None and gap["mean"] * effect > 0
    return same and excludes_zero(gap) and abs(gap["mean"]) >= _SHARE * abs(effect)


def excludes_zero(interval: Interval) -> bool:
    """Whether an interval is known and lies on one side of 0."""
    low, high = interval["low"], interval["high"]
    return low is not None and high is not None and (low > 0 or high < 0)
