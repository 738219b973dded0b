"""Figures and animations of a finished run."""

import io

import numpy as np
import pytest
from PIL import Image

from diffcf_jax.counterfactual.types import Counterfactual
from diffcf_jax.data.record import Record
from diffcf_jax.errors import UserError
from diffcf_jax.explanation import Explanation
from diffcf_jax.report.animation import animate
from diffcf_jax.report.command import figures
from diffcf_jax.results.log import read_results
from diffcf_jax.results.summary import summarise, write_summary
from diffcf_jax.results.writer import ResultWriter

GREY = np.full((8, 8, 3), 100, np.uint8)


@pytest.fixture
def out(tmp_path):
    """Two images, the first with three targets; each counterfactual is a plain colour."""
    folder = tmp_path / "out"
    with ResultWriter(folder, ["a.png", "b.png"], several_targets=True) as writer:
        for id, name, target, level in [
            (0, "a.png", 60.0, 200), (0, "a.png", 20.0, 50), (0, "a.png", "max", 250),
            (1, "b.png", 20.0, 60),
        ]:  # fmt: skip
            image = np.full((8, 8, 3), level / 255, np.float32)
            found = Counterfactual(
                image=image, reconstruction=image * 0 + GREY[0, 0, 0] / np.float32(255),
                y_initial=np.float32(30), y_reconstruction=np.float32(31),
                y_final=np.float32(level / 4), success=np.bool_(target == 20), stop=None,
                iterations=np.int32(3), curve=np.float32([30, 40]), mask=None,
            )  # fmt: skip
            writer.save(Record(id, name, GREY), target, found, 1.0, None, "years")
    config = {"method": {"threshold": 2.0}, "regressor": {"unit": "years"}}
    write_summary(folder, summarise(read_results(folder), config, 1.0, {}))
    return folder


def test_sheets_and_collages(out):
    paths = figures(out, "a.png", ["png", "svg", "pdf"])
    assert [path.name for path in paths] == ["a.png", "a.svg", "a.pdf"]
    assert paths[2].read_bytes().startswith(b"%PDF")
    # In the order of the targets; a colour that darkens is blue in its heatmap.
    four, two = Image.open(paths[0]), Image.open(figures(out, "b.png")[0])
    assert four.width > two.width
    left = two.convert("RGB").crop((0, 0, int(0.8 * two.width), two.height))  # no colour bar
    pixels = np.asarray(left).reshape(-1, 3).astype(int)
    assert (pixels @ [-1, -1, 2] > 300).any() and not (pixels @ [2, -1, -1] > 300).any()
    (collage,) = figures(out, first=3)
    assert collage.name == "collage.png" and Image.open(collage).height > four.height


def test_an_animation_passes_through_all_predictions(out):
    (path,) = figures(out, "a.png", ["gif"])
    moving = Image.open(path)
    colours, still = [], []
    for i in range(moving.n_frames):
        moving.seek(i)
        if moving.info["duration"] > 500:
            still.append(i)
            colours.append(int(np.asarray(moving.convert("RGB"))[4, 4, 0]))
    assert colours == pytest.approx([100, 50, 200, 250], abs=3) and moving.n_frames == 4 * 13
    rows = [row for row in read_results(out) if row["name"] == "b.png"]
    assert Image.open(io.BytesIO(animate(out, rows))).format == "WEBP"


def test_user_errors(out):
    for arguments, message in [
        ({"name": "c.png"}, "holds no result of c.png"),
        ({"forms": ["bmp"]}, "--form names 'bmp': use png, svg, pdf, webp, gif"),
        ({"forms": ["gif"], "first": 2}, "A collage does not move: leave gif out"),
    ]:
        with pytest.raises(UserError, match=message):
            figures(out, **arguments)


def test_an_explanation_shows_itself(out):
    explanation = Explanation.load(out)
    html = explanation._repr_html_()
    assert html.count("<img") == 12 and "max" in html and "and " not in html
    assert len(explanation.plot("a.png").axes) == 2 * 4 + 1  # and the colour bar
    with pytest.raises(UserError, match=r"has no image c\.png"):
        explanation.plot("c.png")


def test_a_table_for_pandas(out):
    pandas = pytest.importorskip("pandas")
    frame = Explanation.load(out).to_dataframe()
    assert isinstance(frame, pandas.DataFrame) and list(frame.target[:2]) == [20, 60]
    assert list(frame.name) == ["a.png", "a.png", "a.png", "b.png"]
