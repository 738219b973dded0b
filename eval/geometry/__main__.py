"""How a Diff-AE's images lie around the counterfactuals of a finished run.

    diffcf geometry OUT [--limit 4] [--values 64]
    python -m eval.geometry OUT                                       (the same in a clone)

measures some counterfactuals of OUT, a run of Diff-AE-RE, and writes into OUT/geometry: the numbers
(geometry.json), a figure (geometry.png and geometry.svg) and a paragraph that says what they mean
(geometry.txt, which is printed as well). docs/geometry.md has the theory and the definitions.
"""

import functools
import sys
from pathlib import Path
from typing import Any

import tqdm
from absl import flags

from diffcf_jax import cli, shipped
from diffcf_jax.files import inside, make_folder, write_file
from diffcf_jax.jsonfile import strict_json

from ..figure import check_matplotlib, figure_bytes
from .figure import draw
from .measure import measure, summarise
from .measures import CUT, PATH
from .paragraph import paragraph
from .subject import open_subject


def geometry(results: str | Path, limit: int = 4, values: int = 64) -> dict[str, Any]:
    """Measure a results folder and write geometry.json, .txt, .png and .svg into its geometry/.

    Args:
        results: the folder of a finished run of Diff-AE-RE.
        limit: counterfactuals, spread evenly over those that reach their target.
        values: leading singular values.

    Returns:
        What geometry.json holds: `text`, the paragraph; `summary`, mean, lowest and highest of
        each number; `cases`, see `measure.measure`; `cut`, `path` and `unit`, what they refer to.

    Raises:
        UserError: see `open_subject`; matplotlib is not installed.
    """
    check_matplotlib()
    folder = Path(results)
    subject = open_subject(folder, limit)
    bar = tqdm.tqdm(
        measure(subject, values), "counterfactuals", len(subject.cases), dynamic_ncols=True
    )
    cases = list(bar)
    summary = summarise(cases)
    text = paragraph(cases, summary)
    found = {
        "text": text,
        "unit": subject.unit.name,
        "cut": CUT,
        "path": PATH,
        "summary": summary,
        "cases": cases,
    }
    figure = draw(cases)
    make_folder(inside(folder, "geometry"))
    files = {
        "geometry.json": (strict_json(found, indent=2) + "\n").encode(),
        "geometry.txt": f"{text}\n".encode(),
        **{f"geometry.{form}": figure_bytes(figure, form) for form in ("png", "svg")},
    }
    for name, data in files.items():
        write_file(inside(folder, f"geometry/{name}"), data)
    return found


def _define(values: flags.FlagValues) -> None:
    flags.DEFINE_integer(
        "limit", 4, "How many counterfactuals to measure.", lower_bound=1, flag_values=values
    )
    flags.DEFINE_integer(
        "values", 64, "How many leading singular values.", lower_bound=1, flag_values=values
    )


def _geometry(args: flags.FlagValues, words: list[str]) -> None:
    folder = Path(words[0]).expanduser()
    print(geometry(folder, args.limit, args.values)["text"])
    print(f"written: {folder / 'geometry'}/geometry.json, .txt, .png and .svg")


main = cli.Command(
    program=functools.partial(shipped.command, "geometry"),
    about="Measures how the generator's images lie around the counterfactuals of a Diff-AE-RE run: "
    "tangent space, encoding, nearest point.",
    run=_geometry,
    define=_define,
    arguments=("OUT",),
)

if __name__ == "__main__":
    sys.exit(main())
