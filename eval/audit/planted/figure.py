"""The figure of the benchmark."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ...figure import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw(found: Mapping[str, Any]) -> "Figure":
    """Draw the effect of every direction on both regressors, and the truth about the planted one.

    Args:
        found: of `benchmark`.
    """
    planted, unit = found["planted"], found["planted"]["unit"]
    figure = new_figure(8.5, 0.22 * len(planted["rows"]) + 1)
    places = figure.subplots(1, 2)
    for place, name in zip(places, ("planted", "clean"), strict=True):
        rows = found[name]["rows"][::-1]
        for i, row in enumerate(rows):
            effect, flagged = row["effect"], row["verdict"] == "flagged"
            colour = "tab:red" if flagged else "0.5"
            place.plot([effect["low"], effect["high"]], [i, i], color=colour, lw=1.5)
            place.plot(effect["mean"], i, "o", ms=4, color=colour)
            if name == "planted" and row["name"] == planted["feature"]["name"]:
                truth = planted["truth"]["effect"]["mean"]
                place.plot(truth, i, "x", ms=7, color="k", label="real change")
                place.legend(fontsize=7, frameon=False, loc="lower right")
        place.axvline(0, color="0.7", lw=0.8)
        place.set_yticks(range(len(rows)), [row["name"] for row in rows], fontsize=7)
        place.tick_params(axis="x", labelsize=7)
        place.set_title(f"{name}: {len(found[name]['flagged'])} of {len(rows)} flagged", fontsize=9)
        place.set_xlabel(
            f"change of the prediction by a step{f' ({unit})' if unit else ''}", fontsize=8
        )
    return figure
