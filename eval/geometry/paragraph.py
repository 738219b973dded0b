"""One paragraph that says what the numbers of a measurement mean."""

from collections.abc import Mapping, Sequence
from typing import Any

from .measures import CUT

_NEAR = 30  # degrees
_FOLLOWED = 0.8  # of Delta z


def paragraph(
    cases: Sequence[Mapping[str, Any]], summary: Mapping[str, Mapping[str, float]]
) -> str:
    """Return the paragraph.

    Args:
        cases: as `measure.measure` yields them.
        summary: of them, by `measure.summarise`.
    """

    def mean(name: str, form: str = ".2g") -> str:
        found = summary[name]
        low, high = format(found["low"], form), format(found["high"], form)
        between = f" ({low} to {high})" if low != high else ""
        return f"{found['mean']:{form}}{between}"

    first, ratio = cases[0], summary["lengths.ratio"]["mean"]
    computed = len(first["singular_values"])
    how = "all" if first["exact"] else "the leading"
    own, random = summary["tangent.regressor"]["mean"], summary["tangent.random"]["mean"]
    text = [
        f"Means of {len(cases)} counterfactuals (lowest to highest). Of {how} {computed} singular "
        f"values of the generator at the reconstruction, {mean('kept', '.0f')} are at least "
        f"{CUT:.0%} of the largest; their effective rank is {mean('effective_rank', '.1f')}: so "
        "many kinds of change does z_sem control here.",
        f"Of the regressor's image gradient, {mean('tangent.regressor')} of the length lies in "
        f"the tangent space that they span, against {mean('tangent.random')} of a random change "
        f"of the image ({summary['tangent.expected of a random change']['mean']:.2g} expected"
        + (
            f") and {mean('tangent.another image')} of the same regressor's gradient at another "
            "image."
            if "tangent.another image" in summary
            else ")."
        ),
        *(
            f"Of the gradient of {name} it is {mean(f'tangent.{name}')}."
            for name in first["tangent"]
            if name not in ("regressor", "random", "another image", "expected of a random change")
        ),
        f"To first order, an edit that stays among the generator's images therefore goes "
        f"{1 / own:.2g} times as far as one of free pixels"
        + (
            ": most of what moves the prediction is not in the images that z_sem makes."
            if own < 0.5
            else ": most of what moves the prediction is in the images that z_sem makes."
        ),
    ]
    if own < 2 * random:
        text.append("The regressor's gradient hardly differs from a random change there.")
    followed = summary["cycle.followed"]["mean"]
    text.append(
        f"Encoding the counterfactual's image again misses its code by {mean('cycle.code')} "
        f"|Delta z| (the reconstruction's by {mean('cycle.code_at_input')}), and decoding that "
        f"code misses the image by {mean('cycle.image')} of its change; the encoder follows "
        f"{mean('cycle.followed')} of Delta z, "
        + (
            "so that the two are nearly inverse along the way."
            if followed >= _FOLLOWED
            else "so that a part of Delta z is no change that the encoder knows from images."
        )
    )
    plain, pulled = (summary[f"nearest.{name}"]["mean"] for name in ("plain", "pulled_back"))
    nearest = [
        name for name, angle in (("plain", plain), ("pulled-back", pulled)) if angle <= _NEAR
    ]
    verdict = (
        f"It is about a nearest point of the level set in the {' and the '.join(nearest)} metric"
        + ("." if len(nearest) == 2 else ", and not in the other.")
        if nearest
        else "It is a nearest point of the level set in neither metric."
    )
    text.append(
        f"At the counterfactual, Delta z stands at {mean('nearest.plain', '.0f')} degrees to the "
        f"gradient in the plain metric of z and at {mean('nearest.pulled_back', '.0f')} degrees "
        f"to the nearest point's direction in the pulled-back metric (the gradient itself at "
        f"{mean('nearest.of_gradient', '.0f')}). {verdict} The image has changed by "
        f"{mean('lengths.ratio')} times the shortest first-order step that moves the prediction "
        "as far"
        + (
            "; a ratio below 1 says that the prediction rises faster on the way than at its start."
            if ratio < 1
            else "."
        )
    )
    return " ".join(text)
