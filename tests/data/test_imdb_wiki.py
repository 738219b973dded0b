"""IMDB-WIKI-clean: cropping a small copy of its structure, ages, splits, and what is missing."""

import csv

import numpy as np
import pytest
from PIL import Image

from diffcf_jax.data import imdb_wiki
from diffcf_jax.data.face_crop import crop_face
from diffcf_jax.data.imdb_wiki import (
    LANDMARKS,
    PHOTOS,
    TABLES,
    crop_all,
    main,
    open_imdb_wiki,
)
from diffcf_jax.errors import UserError

AGES = {
    "train": {"00/a.jpg": 31, "01/b.jpg": 64},
    "validation": {"00/c.jpg": 7},
    "test": {"02/d.jpg": 80},
}
POINTS = ["lefteye", "righteye", "nose", "leftmouth", "rightmouth"]
FACE = np.array([[20, 15], [36, 15], [28, 24], [22, 33], [34, 33]])


def crop(source, out):
    return crop_all(source, out, image_size=16, workers=2, crop_size=32)


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "imdb-clean"
    (folder / "csvs").mkdir(parents=True)
    rng = np.random.default_rng(0)
    landmarks = []
    for split, ages in AGES.items():
        with (folder / "csvs" / TABLES[split]).open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["filename", "age", "gender", "x_min"])
            writer.writerows([name, age, "F", 3] for name, age in ages.items())
        for name in ages:
            path = folder / PHOTOS / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, [60, 50, 3], np.uint8)).save(path)
            landmarks.append([name, 0.99, *FACE.ravel()])
    with (folder / "csvs" / LANDMARKS).open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["filename", "score", *(f"{p}_{axis}" for p in POINTS for axis in "xy")])
        writer.writerows(landmarks)
    return folder


def refused(*words, function=open_imdb_wiki, arguments):
    with pytest.raises(UserError) as error:
        function(*arguments)
    sentence = str(error.value)
    assert "\n" not in sentence
    for word in words:
        assert word in sentence, sentence


def test_tables_have_their_own_names():
    assert TABLES == {
        "train": "imdb_train_new_1024.csv",
        "validation": "imdb_valid_new_1024.csv",
        "test": "imdb_test_new_1024.csv",
    }


def test_cropping_and_reading(source, tmp_path):
    out = tmp_path / "faces"
    assert crop(source, out) == {}
    for split, ages in AGES.items():
        data = open_imdb_wiki(out, split, image_size=16)
        assert data.names == list(ages) and data.unit == "years"
        np.testing.assert_array_equal(data.labels, list(ages.values()))
        for record in data:
            with Image.open(source / PHOTOS / record.name) as photo:
                face = crop_face(photo.convert("RGB"), FACE, 32)
            expected = np.asarray(face.resize((16, 16), Image.Resampling.BILINEAR), np.float64)
            assert np.abs(record.image - expected).mean() < 12  # JPEG
            assert record.y == ages[record.name]
    assert open_imdb_wiki(out, "train", limit=1).names == ["00/a.jpg"]
    # Started again, nothing is made twice.
    before = (out / "00/a.jpg").stat().st_mtime_ns
    assert crop(source, out) == {}
    assert (out / "00/a.jpg").stat().st_mtime_ns == before


def test_photos_that_cannot_be_cropped(source, tmp_path, monkeypatch):
    (source / PHOTOS / "01/b.jpg").write_bytes(b"no image")
    table = source / "csvs" / LANDMARKS
    table.write_text("".join(table.read_text().splitlines(keepends=True)[:-1]))
    out = tmp_path / "faces"
    refused("of 4 photos cannot be cropped", "b.jpg", function=crop, arguments=[source, out])
    monkeypatch.setattr(imdb_wiki, "LARGEST_BAD_SHARE", 0.5)
    bad = crop(source, out)
    assert list(bad) == ["01/b.jpg", "02/d.jpg"]
    assert "cannot be cropped" in bad["01/b.jpg"] and "no line in" in bad["02/d.jpg"]
    assert open_imdb_wiki(out, "train").names == ["00/a.jpg"]
    assert not [path for path in out.rglob("*") if path.name.startswith(".")]


def test_what_is_missing(source, tmp_path, capsys):
    refused('no split "dev"', arguments=[source, "dev"])
    refused("python -m diffcf_jax.data.imdb_wiki", arguments=[source, "train"])
    refused("imdb_train_new_1024.csv is missing", "https://", arguments=[tmp_path, "train"])
    out = tmp_path / "faces"
    crop(source, out)
    (out / "00/a.jpg").unlink()
    refused("lacks 1 of the 2 images", "00/a.jpg", arguments=[out, "train"])
    (out / TABLES["test"]).write_text("filename,age\n02/d.jpg,old\n")
    refused("line 2, column age", '"old"', arguments=[out, "test"])
    (out / TABLES["test"]).write_text("filename,years\n02/d.jpg,5\n")
    refused("no column age", arguments=[out, "test"])
    for name in f"csvs/{LANDMARKS}", f"csvs/{TABLES['test']}", PHOTOS:
        (source / name).rename(source / "hidden")
        assert main([str(source), str(out)]) == 2
        assert f"{name} is missing" in capsys.readouterr().err
        (source / "hidden").rename(source / name)
