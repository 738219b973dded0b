"""Figures for papers and the documentation, drawn by matplotlib, the extra `plot`."""

import importlib.util
import io
from typing import TYPE_CHECKING

from diffcf_jax.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def check_matplotlib() -> None:
    """Refuse to begin what ends with a figure where none can be drawn.

    Raises:
        UserError: matplotlib is not installed.
    """
    if not importlib.util.find_spec("matplotlib"):
        raise UserError(
            "The figure is drawn by matplotlib, which is not installed: pip install "
            "'diffcf_jax[plot]'."
        )


def new_figure(width: float, height: float) -> "Figure":
    """Return an empty figure of that size in inches; see `check_matplotlib`."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=150, layout="constrained")


def figure_bytes(figure: "Figure", form: str) -> bytes:
    """Return a figure as "png" or "svg"; the same figure gives the same bytes."""
    import matplotlib

    file = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "diffcf"}):
        figure.savefig(file, format=form, metadata={"Date": None} if form == "svg" else None)
    return file.getvalue()
