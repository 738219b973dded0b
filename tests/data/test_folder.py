"""A user's folder of images and its data.csv: what is listed, what is refused and how."""

import csv
import math
import os
import pathlib
import tempfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from diffcf_jax.data.folder import ImageFolder, read_targets, refuse_inside
from diffcf_jax.errors import UserError

SIZE = 16


def save(folder, *names, size=(SIZE, SIZE)):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size).save(path, format="png")


def folder_refused(folder, *words):
    with pytest.raises(UserError) as error:
        ImageFolder(folder, SIZE)
    for word in [str(folder), *words]:
        assert word in str(error.value), error.value
    assert "\n" not in str(error.value)


def test_listing(tmp_path):
    save(tmp_path, "b.PNG", "a.png", "sub/a.png", "sub/deep/é.Jpg", ".hidden.png", ".dir/a.png")
    (tmp_path / "notes.txt").write_text("no image")
    images = ImageFolder(tmp_path, SIZE)
    assert images.names == ["a.png", "b.PNG", "sub/a.png", "sub/deep/é.Jpg"]
    assert len(images) == 4
    assert [record.id for record in images] == [0, 1, 2, 3]
    assert images[-1].name == "sub/deep/é.Jpg"
    assert images[0].target is None and images[0].y is None and images[0].mask is None
    with pytest.raises(IndexError):
        images[4]


def test_home_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    save(tmp_path, "pictures/a.png")
    assert ImageFolder("~/pictures", SIZE).names == ["a.png"]


def test_bad_folder(tmp_path):
    folder_refused(tmp_path / "nowhere", "does not exist", "data.path")
    (tmp_path / "a.txt").write_text("")
    folder_refused(tmp_path / "a.txt", "not a folder", "data.path")
    folder_refused(tmp_path, "no image", "data.path")


@pytest.mark.skipif(os.name != "posix", reason="needs names of any bytes")
def test_name_that_is_not_utf8(tmp_path):
    save(tmp_path, "a.png")
    try:
        os.rename(tmp_path / "a.png", os.fsencode(tmp_path) + b"/\xff.png")
    except OSError:
        pytest.skip("the file system takes only UTF-8")
    folder_refused(tmp_path, "UTF-8", "rename")


def test_results_that_would_overwrite_each_other(tmp_path):
    save(tmp_path, "a.png", "b/a.png", "b/c.jpg")
    ImageFolder(tmp_path, SIZE)
    save(tmp_path, "b/c.PNG")
    folder_refused(tmp_path, "b/c.PNG", "b/c.jpg", "b/c.png", "rename")


def test_links_to_folders_are_followed(tmp_path):
    save(tmp_path, "elsewhere/b.png", "elsewhere/deep/c.png", "images/a.png", "images/sub/d.png")
    images = tmp_path / "images"
    for link, target in {
        "linked": "elsewhere", "sub/up": "images", "root": ".", "dangling": "nowhere",
    }.items():  # fmt: skip
        (images / link).symlink_to(tmp_path / target)
    (tmp_path / "elsewhere/back").symlink_to(images)
    names = ["a.png", "linked/b.png", "linked/deep/c.png", "sub/d.png"]
    # The link to what holds everything leads to these files on a way of their own, but to no end.
    more = ["root/elsewhere/b.png", "root/elsewhere/deep/c.png"]
    data = ImageFolder(images, SIZE)
    assert data.names == sorted(names + more)
    assert data[data.names.index("linked/deep/c.png")].image.shape == (SIZE, SIZE, 3)


def test_a_workdir_among_the_images_is_refused(tmp_path):
    save(tmp_path, "elsewhere/b.png", "images/a.png")
    (tmp_path / "images/linked").symlink_to(tmp_path / "elsewhere")
    for inside in "images", "images/new/run", "elsewhere/run", "images/linked/run":
        with pytest.raises(UserError, match="outside of it"):
            refuse_inside(tmp_path / "images", tmp_path / inside)
    for outside in "out", "images2/run":
        refuse_inside(tmp_path / "images", tmp_path / outside)
    refuse_inside(tmp_path / "missing", tmp_path / "out")


def test_bad_image_spoils_only_itself(tmp_path):
    save(tmp_path, "a.png", "c.png")
    save(tmp_path, "b.png", size=(5, 5))
    images = ImageFolder(tmp_path, SIZE)
    assert len(images) == 3
    images[0], images[2]
    with pytest.raises(UserError, match=r"b\.png"):
        images[1]
    assert ImageFolder(tmp_path, SIZE, convert=True)[1].image.shape == (SIZE, SIZE, 3)


# data.csv.


def test_targets(tmp_path):
    save(tmp_path, "a.png", "b.png", "sub/a, b.png", "none.png")
    (tmp_path / "data.csv").write_bytes(
        b"\xef\xbb\xbfname, target, y_true\r\n"  # as spreadsheets write it
        b"b.png,0.25,3\r\n\r\n"
        b'"sub/a, b.png", -1e3,\r\n'
        b",,\r\n"
    )
    records = {record.name: record for record in ImageFolder(tmp_path, SIZE)}
    assert (records["b.png"].target, records["b.png"].y) == (0.25, 3.0)
    assert (records["sub/a, b.png"].target, records["sub/a, b.png"].y) == (-1000.0, None)
    assert (records["none.png"].target, records["none.png"].y) == (None, None)

    (tmp_path / "data.csv").write_text("target,name\n1,a.png")
    record = ImageFolder(tmp_path, SIZE)[0]
    assert (record.target, record.y) == (1.0, None)


BAD_TABLES = {
    "": "empty",
    "\n\n": "empty",
    "name\na.png\n": "line 1: the columns",
    "name;target\na.png;1\n": "line 1: the columns .* separated by commas",
    "name,target,ytrue\n": "line 1: the columns",
    "name,target,target\n": "line 1: the columns",
    "a.png,0.5\n": "line 1: the columns",
    "name,target\na.png\n": "line 2: 1 columns instead of 2",
    "name,target\na.png,1\nb.png,0,5\n": "line 3: 3 columns instead of 2",
    "name,target\na.png,nan\n": 'line 2, column target: "nan"',
    "name,target\na.png,-inf\n": 'line 2, column target: "-inf"',
    "name,target\na.png,1e39\n": 'line 2, column target: "1e39"',
    "name,target\na.png,old\n": 'line 2, column target: "old"',
    "name,target\na.png,1_0\n": 'line 2, column target: "1_0"',
    "name,target\na.png,٣\n": 'line 2, column target: "٣"',
    "name,target\na.png,0x10\n": 'line 2, column target: "0x10"',
    f"name,target\na.png,{'1' * 300}x\n": r'line 2, column target: "1{200}\.\.\." is not',
    "name,target\na.png,\n": 'line 2, column target: ""',
    "name,target,y_true\na.png,1,x\n": 'line 2, column y_true: "x"',
    "name,target\na.png,1\n\nc.png,1\n": 'line 4, column name: there is no image "c.png"',
    "name,target\na.png,1\nb.png,1\na.png,2\n": 'line 4, column name: "a.png" is already in line 2',
    'name,target\n"a.png,1\n': "line 2: not a comma-separated table",
}


@pytest.mark.parametrize("text, message", BAD_TABLES.items())
def test_bad_table(tmp_path, text, message):
    save(tmp_path, "a.png", "b.png")
    (tmp_path / "data.csv").write_text(text)
    with pytest.raises(UserError, match=rf"data\.csv.*{message}"):
        ImageFolder(tmp_path, SIZE)


def test_table_that_is_no_utf8_or_no_file(tmp_path):
    save(tmp_path, "a.png")
    for data, line in ("name,target\na.png,1\né.png,2".encode("latin-1"), 3), (b"\xff\xfen\0", 1):
        (tmp_path / "data.csv").write_bytes(data)
        folder_refused(tmp_path, f"data.csv, line {line}", "UTF-8")
    (tmp_path / "data.csv").unlink()
    (tmp_path / "data.csv").mkdir()
    folder_refused(tmp_path, "cannot read", "data.csv")


def test_names_in_either_unicode_form(tmp_path):
    composed, decomposed = "zo\u00e9.png", "zoe\u0301.png"
    for there, written in (composed, decomposed), (decomposed, composed):
        names = {there, "a.png"}
        (tmp_path / "data.csv").write_text(f"name,target\n{written},1", encoding="utf-8")
        assert read_targets(tmp_path / "data.csv", names) == {there: (1.0, None)}
    # Where both are there each is meant as it is written.
    both = {composed, decomposed}
    assert read_targets(tmp_path / "data.csv", both) == {composed: (1.0, None)}
    (tmp_path / "data.csv").write_text(f"name,target\n{composed},1\n{decomposed},2")
    with pytest.raises(UserError, match="is already in line 2"):
        read_targets(tmp_path / "data.csv", {composed})


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_what_is_no_regular_file_is_not_opened(tmp_path):
    save(tmp_path, "a.png")
    os.mkfifo(tmp_path / "b.png")
    with pytest.raises(UserError, match=r"b\.png .*not a regular file"):
        ImageFolder(tmp_path, SIZE)[1]
    os.mkfifo(tmp_path / "data.csv")
    folder_refused(tmp_path, "data.csv: it is not a regular file")
    (tmp_path / "data.csv").unlink()
    (tmp_path / "data.csv").symlink_to("/dev/zero")
    folder_refused(tmp_path, "data.csv: it is not a regular file")


NAMES = ["a.png", "b c.png", "sub/d.png", 'quo"te.jpg', "é.png", "x,y.png"]
FINITE = st.floats(-1e30, 1e30)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.sampled_from(NAMES), st.tuples(FINITE, st.none() | FINITE)))
def test_any_valid_table(table):
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "data.csv"
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["name", "target", "y_true"])
            writer.writerows([name, *values] for name, values in table.items())
        assert read_targets(path, set(NAMES)) == table


CELLS = st.sampled_from([*NAMES, "0.5", "-1", "nan", "1e99", "", " ", '"', "\0", "\r", ";", "x"])
LINES = st.lists(st.lists(CELLS, max_size=4).map(",".join), max_size=5).map("\n".join)


@settings(max_examples=300, deadline=None)
@given(
    st.binary(max_size=40)
    | LINES.map(str.encode)
    | LINES.map(lambda lines: f"name,target\n{lines}".encode())
)
def test_tables_of_anything_raise_only_user_errors(data):
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "data.csv"
        path.write_bytes(data)
        try:
            targets = read_targets(path, set(NAMES))
        except UserError as error:
            assert str(path) in str(error)
        else:
            assert set(targets) <= set(NAMES)
            assert all(math.isfinite(target) for target, _ in targets.values())
