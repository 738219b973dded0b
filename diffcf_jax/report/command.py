"""Pages and figures of a finished run, from its folder alone.

    diffcf report OUT [--attributes attributes.csv]
    diffcf figure OUT --name lower_155.png --form pdf,webp
    diffcf figure OUT --collage 8

`report` writes OUT/report.html anew. The columns of a table (`name,glasses,site,...`, a row per
image) are kept in OUT/attributes.csv, and the cases can be filtered and sorted by them. `figure`
writes into OUT/figures: a sheet of all targets of an image, or a collage of several images, as PNG,
SVG or PDF; and an animation as WebP or GIF.
"""

import functools
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from diffcf_jax import cli, shipped
from diffcf_jax.errors import UserError
from diffcf_jax.files import inside, read_image, write_file
from diffcf_jax.report.animation import FORMATS, animate
from diffcf_jax.report.columns import keep_attributes
from diffcf_jax.report.html import write_report
from diffcf_jax.report.sheet import collage, sheet
from diffcf_jax.results.log import image_path, order_of, read_results
from diffcf_jax.results.summary import read_summary

STILL = ("png", "svg", "pdf")


def figures(
    results: str | Path,
    name: str | None = None,
    forms: Sequence[str] = ("png",),
    first: int | None = None,
) -> list[Path]:
    """Write figures of a run.

    Args:
        results: the folder.
        name: of the image; None: the first one.
        forms: "png", "svg" and "pdf" for a sheet, "webp" and "gif" for an animation.
        first: a collage of so many results instead of one image's sheet.

    Returns:
        The paths.

    Raises:
        UserError: there is no such image or form; matplotlib is not installed.
    """
    folder = Path(results)
    rows = sorted((row for row in read_results(folder) if "error" not in row), key=order_of)
    unit = (read_summary(folder)["config"].get("regressor") or {}).get("unit")
    if not rows:
        raise UserError(f"{folder} holds no counterfactual: there is nothing to draw")
    if unknown := [form for form in forms if form not in (*STILL, *FORMATS)]:
        known = ", ".join((*STILL, *FORMATS))
        raise UserError(f"--form names '{unknown[0]}': use {known}")
    if first is not None:
        if moving := [form for form in forms if form in FORMATS]:
            raise UserError(f"A collage does not move: leave {moving[0]} out of --form")
        return [_write(folder, "collage", form, rows[:first], unit, collage) for form in forms]
    name = name or rows[0]["name"]
    chosen = [row for row in rows if row["name"] == name]
    if not chosen:
        raise UserError(f"{folder} holds no result of {name}: give the name of an input")
    return [_write(folder, name, form, chosen, unit, sheet) for form in forms]


def _write(
    folder: Path, name: str, form: str, rows: list[Mapping[str, Any]], unit: str | None, draw: Any
) -> Path:
    path = inside(folder, f"figures/{Path(name).stem}.{form}")
    if form in FORMATS:
        data = animate(folder, rows, unit, form)
    else:
        file = io.BytesIO()
        drawn = draw(rows, lambda row, key: read_image(image_path(folder, row, key)), unit)
        drawn.savefig(file, format=form)
        data = file.getvalue()
    path.parent.mkdir(exist_ok=True)
    write_file(path, data)
    return path


def _define_results(values: flags.FlagValues) -> None:
    cli.define_path(values, "results", "OUT, the folder of a finished run, its --workdir.")


def _define_figure(values: flags.FlagValues) -> None:
    _define_results(values)
    flags.DEFINE_string("name", None, "The image, as its input is called.", flag_values=values)
    flags.DEFINE_list("form", ["png"], "png, svg, pdf; webp, gif to animate.", flag_values=values)
    flags.DEFINE_integer(
        "collage", None, "A collage of so many results instead.", 1, flag_values=values
    )


def _define_report(values: flags.FlagValues) -> None:
    _define_results(values)
    cli.define_path(values, "attributes", "A table of your own columns, with the header name,...")


def _report(args: flags.FlagValues, _: list[str]) -> None:
    if args.attributes:
        read_results(args.results)  # a folder of results, before anything is written there
        keep_attributes(args.results, args.attributes)
    print(f"The report is {write_report(args.results).resolve()}")


def _figure(args: flags.FlagValues, _: list[str]) -> None:
    for path in figures(args.results, args.name, args.form, args.collage):
        print(path)


report = cli.Command(
    program=functools.partial(shipped.command, "report"),
    about="Writes the report of a finished run anew, from its folder alone.",
    run=_report,
    define=_define_report,
    required=("results",),
    operand="results",
)
figure = cli.Command(
    program=functools.partial(shipped.command, "figure"),
    about="Draws figures for papers, and animations, of a finished run.",
    run=_figure,
    define=_define_figure,
    required=("results",),
    operand="results",
)
