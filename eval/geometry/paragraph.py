"""One paragraph that says what the numbers of a measurement mean."""

from collections.abc import Mapping, Sequence
from typing import Any

from .measures import CUT

_NEAR = 30  # degrees
_FOLLOWED = 0.8  # of Delta z
_CONTROLS = ("another image", "random", "expected of a random change")

Summary = Mapping[str, Mapping[str, float]]


def paragraph(cases: Sequence[Mapping[str, Any]], summary: Summary) -> str:
    """Return the paragraph.

    Args:
        cases: as `measure.measure` yields them.
        summary: of them, by `measure.summarise`.
    """
    sentences = [
        f"Means of {len(cases)} counterfactuals (lowest to highest).",
        *_spectrum(cases, summary),
        *_tangent(cases[0]["tangent"], summary),
        _cycle(summary),
        *_nearest(summary),
    ]
    return " ".join(sentences)


def _spectrum(cases: Sequence[Mapping[str, Any]], summary: Summary) -> list[str]:
    first = cases[0]
    computed = len(first["singular_values"])
    how = "" if first["exact"] else ", from a random sketch"
    sentences = [
        f"Of the {computed} leading singular values of {first['dimensions']}{how}, of the "
        f"generator at the reconstruction, {_mean(summary['kept'], '.0f')} are at least {CUT:.0%} "
        f"of the largest; their effective rank is {_mean(summary['effective_rank'], '.1f')}: "
        "z_sem controls about that many kinds of change here."
    ]
    if computed < first["dimensions"] and summary["kept"]["high"] == computed:
        sentences.append("Smaller values than the last one count too: give more --values.")
    return sentences


def _tangent(names: Mapping[str, float], summary: Summary) -> list[str]:
    own, random = summary["tangent.regressor"]["mean"], summary["tangent.random"]["mean"]
    controls = (
        f"{_mean(summary['tangent.random'])} of a random change of the image "
        f"({summary['tangent.expected of a random change']['mean']:.2g} expected)"
    )
    if "tangent.another image" in summary:
        other = _mean(summary["tangent.another image"])
        controls += f" and {other} of the same regressor's gradient at another image"
    sentences = [
        f"Of the regressor's image gradient, {_mean(summary['tangent.regressor'])} of the length "
        f"lies in the tangent space that they span, against {controls}."
    ]
    sentences += [
        f"Of the gradient of {name} it is {_mean(summary[f'tangent.{name}'])}."
        for name in names
        if name not in ("regressor", *_CONTROLS)
    ]
    where = "is" if own >= 0.5 else "is not"
    sentences.append(
        "To first order, an edit that stays among the generator's images therefore goes "
        f"{1 / own:.2g} times as far as one of free pixels: most of what moves the prediction "
        f"{where} in the images that z_sem makes."
    )
    if own < 2 * random:
        sentences.append("The regressor's gradient hardly differs from a random change there.")
    return sentences


def _cycle(summary: Summary) -> str:
    followed = summary["cycle.followed"]
    meaning = (
        "so that the two are nearly inverse along the way."
        if followed["mean"] >= _FOLLOWED
        else "so that a part of Delta z is no change that the encoder knows from images."
    )
    return (
        "Encoding the counterfactual's image again misses its code by "
        f"{_mean(summary['cycle.code'])} |Delta z| (the reconstruction's by "
        f"{_mean(summary['cycle.code_at_input'])}), and decoding that code misses the image by "
        f"{_mean(summary['cycle.image'])} of its change; the encoder follows {_mean(followed)} of "
        f"Delta z, {meaning}"
    )


def _nearest(summary: Summary) -> list[str]:
    plain, pulled = summary["nearest.plain"], summary["nearest.pulled_back"]
    near = [
        name
        for name, angle in (("plain", plain), ("pulled-back", pulled))
        if angle["mean"] <= _NEAR
    ]
    if len(near) == 2:
        verdict = "It is about a nearest point of the level set in both metrics."
    elif near:
        verdict = f"It is about a nearest point of the level set in the {near[0]} metric only."
    else:
        verdict = "It is a nearest point of the level set in neither metric."
    ratio = summary["lengths.ratio"]
    faster = (
        "; a ratio below 1 says that the prediction changes faster on the way than at its start"
        if ratio["mean"] < 1
        else ""
    )
    return [
        f"At the counterfactual, Delta z stands at {_mean(plain, '.0f')} degrees to the gradient "
        f"in the plain metric of z and at {_mean(pulled, '.0f')} degrees to the nearest point's "
        "direction in the pulled-back metric (the gradient itself at "
        f"{_mean(summary['nearest.of_gradient'], '.0f')}).",
        verdict,
        f"The image has changed by {_mean(ratio)} times the shortest first-order step that moves "
        f"the prediction as far{faster}.",
    ]


def _mean(found: Mapping[str, float], form: str = ".2g") -> str:
    low, high = format(found["low"], form), format(found["high"], form)
    between = f" ({low} to {high})" if low != high else ""
    return f"{found['mean']:{form}}{between}"
