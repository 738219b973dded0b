"""The figure of a measurement: spectrum, tangent space, path, and nearest point."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..figure import new_figure
from .measures import CUT, PATH

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BAD = 1e-9  # below any share that is drawn on a logarithmic axis
_STYLES = {"random": ("0.6", "-"), "another image": ("tab:orange", "--")}


def draw(cases: Sequence[Mapping[str, Any]]) -> "Figure":
    """Draw four panels: one line or point per counterfactual, as `measure.measure` yields them."""
    figure = new_figure(8.5, 6.4)
    places = figure.subplots(2, 2)
    for panel, place in zip((_spectrum, _tangent, _cycle, _nearest), places.flat, strict=True):
        panel(place, cases)
        place.title.set_fontsize(9)
        place.tick_params(labelsize=8)
        place.xaxis.label.set_fontsize(8)
        place.yaxis.label.set_fontsize(8)
    return figure


def _spectrum(place: Any, cases: Sequence[Mapping[str, Any]]) -> None:
    for case in cases:
        values = np.asarray(case["singular_values"])
        place.plot(np.arange(1, len(values) + 1), values / values[0], color="tab:blue", lw=1)
    place.axhline(CUT, color="0.5", lw=0.8, ls=":")
    place.set(
        title="Singular values of J at the reconstruction", xlabel="number", xscale="log",
        yscale="log", ylabel="share of the largest",
    )  # fmt: skip
    place.set_ylim(bottom=max(place.get_ylim()[0], 1e-6))


def _tangent(place: Any, cases: Sequence[Mapping[str, Any]]) -> None:
    names = list(cases[0]["tangent_by_k"])
    own = [name for name in names if name not in _STYLES]
    colours = dict(zip(own, ("tab:blue", "tab:green", "tab:red", "tab:purple"), strict=False))
    for name in names:
        colour, line = _STYLES.get(name, (colours.get(name, "tab:brown"), "-"))
        curves = [np.asarray(case["tangent_by_k"][name]) for case in cases]
        for i, curve in enumerate(curves):
            label = {"random": "random change"}.get(name, name) if i == 0 else None
            ks = np.arange(1, len(curve) + 1)
            place.plot(ks, np.maximum(curve, _BAD), color=colour, ls=line, lw=1, label=label)
    kept = np.mean([case["kept"] for case in cases])
    place.axvline(kept, color="0.5", lw=0.8, ls=":")
    place.set(
        title="Part of a gradient in the tangent space", xlabel="first k singular vectors",
        ylabel="|P g| / |g|", xscale="log", ylim=(0, None),
    )  # fmt: skip
    place.legend(fontsize=7, frameon=False)


def _cycle(place: Any, cases: Sequence[Mapping[str, Any]]) -> None:
    for key, colour, label in (("code", "tab:blue", "code"), ("image", "tab:orange", "image")):
        for i, case in enumerate(cases):
            values = case["cycle"][key]
            place.plot(PATH, values, "o-", ms=3, lw=1, color=colour, label=None if i else label)
    place.set(
        title="Encoding and decoding once more", xlabel="share of the way to the counterfactual",
        ylabel="error / length of the way", ylim=(0, None),
    )  # fmt: skip
    place.legend(fontsize=7, frameon=False)


def _nearest(place: Any, cases: Sequence[Mapping[str, Any]]) -> None:
    kinds = {
        "plain": "$\\Delta z$ to $g$,\nplain",
        "pulled_back": "$\\Delta z$ to $G^{-1}g$,\npulled back",
        "of_gradient": "$g$ to $G^{-1}g$,\npulled back",
    }
    for key, colour, label in (
        ("nearest_at_start", "0.6", "at the reconstruction"),
        ("nearest", "tab:blue", "at the counterfactual"),
    ):
        offset = -0.1 if key == "nearest_at_start" else 0.1
        for i, kind in enumerate(kinds):
            angles = [case[key][kind] for case in cases]
            spread = offset + np.linspace(-0.04, 0.04, len(angles))
            place.plot(
                i + spread, angles, "o", ms=4, color=colour, label=None if i else label, alpha=0.8
            )
    place.axhline(90, color="0.5", lw=0.8, ls=":")
    ratios = [case["lengths"]["straight"] / case["lengths"]["shortest"] for case in cases]
    mean = math.fsum(ratios) / len(ratios)
    place.set(
        title=f"Angles; the image moves {mean:.2g} times the shortest step",
        xticks=range(len(kinds)), xticklabels=list(kinds.values()), ylabel="degrees",
        ylim=(0, max(95, place.get_ylim()[1])), xlim=(-0.5, len(kinds) - 0.5),
    )  # fmt: skip
    place.legend(fontsize=7, frameon=False)
