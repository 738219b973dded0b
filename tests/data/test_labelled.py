"""A user's own labelled images: the split, what a record holds, and what is refused and how."""

import numpy as np
import pytest
from PIL import Image

from diffcf_jax.data.labelled import LabelledImages, is_held_out, open_labelled
from diffcf_jax.errors import UserError

SIZE = 8
NAMES = [f"{i:02d}.png" for i in range(20)]


def save(folder, names, size=(SIZE, SIZE), mode="RGB"):
    for i, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", size, i).convert(mode).save(path, format="png")


@pytest.fixture
def folder(tmp_path):
    save(tmp_path, NAMES)
    lines = [f"{name},{100 * i - 3.5}" for i, name in enumerate(NAMES)]
    (tmp_path / "labels.csv").write_text("name,y\n" + "\n".join(lines))
    return tmp_path


def refused(folder, *words, labels="labels.csv", **kwargs):
    with pytest.raises(UserError) as error:
        open_labelled(folder, folder / labels, SIZE, **kwargs)
    sentence = str(error.value)
    assert "\n" not in sentence
    for word in words:
        assert word in sentence, sentence


def test_records_and_labels(folder):
    train, held_out = open_labelled(folder, folder / "labels.csv", SIZE, held_out=0.3)
    assert sorted(train.names + held_out.names) == NAMES
    assert train.names == sorted(train.names)
    for part in train, held_out:
        assert part.labels.dtype == np.float32 and len(part) == len(part.labels) > 0
        for i in range(len(part)):
            number = int(part.names[i][:2])
            record = part[i]
            assert (record.id, record.name, record.y) == (i, part.names[i], 100 * number - 3.5)
            assert (record.image == number).all() and record.target is None
        with pytest.raises(IndexError):
            part[len(part)]
    assert train.unit is None and train.total == 20


def test_split_depends_on_each_name_alone(folder):
    held = dict(zip(NAMES, is_held_out(NAMES, 0.3), strict=True))
    assert [name for name in NAMES if held[name]] == [
        name for name in NAMES if is_held_out([name], 0.3)[0]
    ]
    # More is held out with a larger share, never something else.
    assert (is_held_out(NAMES, 0.5) | ~is_held_out(NAMES, 0.3)).all()
    many = [f"sub/{i}.jpg" for i in range(10_000)]
    assert abs(is_held_out(many, 0.1).mean() - 0.1) < 0.01
    # The first four bytes of sha256("abc") are ba7816bf: 0.7284...
    assert not is_held_out(["abc"], 0.728)[0] and is_held_out(["abc"], 0.729)[0]


def test_any_image_is_brought_to_size(tmp_path):
    save(tmp_path, ["a/grey.png"], size=(30, 12), mode="L")
    save(tmp_path, ["b/c/palette.PNG"], size=(5, 9), mode="P")
    stripes = np.zeros([16, 32, 3], np.uint8)
    stripes[:, 8:24:2] = 255
    Image.fromarray(stripes).save(tmp_path / "wide.png")
    data = LabelledImages(tmp_path, ["a/grey.png", "b/c/palette.PNG", "wide.png"], [1, 2, 3], SIZE)
    for record in (data[i] for i in range(3)):
        assert record.image.shape == (SIZE, SIZE, 3) and record.image.dtype == np.uint8
    # The centre is kept, and stripes that are too fine become grey instead of a pattern.
    assert data[2].image[:, 1:-1].min() > 110 and data[2].image[:, 1:-1].max() < 145


def test_images_without_labels_suffice_for_a_generator(folder):
    train, _ = open_labelled(folder, "", SIZE, held_out=0.3)
    assert np.isnan(train.labels).all() and train[0].y is None


def test_rows_and_images_that_do_not_match(folder):
    table = folder / "labels.csv"
    text = table.read_text()
    table.write_text(text + "\nnowhere.png,1\nneither.png,2")
    refused(folder, "line 22", '"nowhere.png"', "nor for 1 more lines")
    table.write_text(text + "\n03.png,1")
    refused(folder, "line 22", '"03.png" is already in line 5')
    save(folder, ["new.png", "other.png"])
    table.write_text(text)
    refused(folder, "no label for 2 of 22 images", '"new.png"', "labels.csv")


@pytest.mark.parametrize("cell", ["old", "nan", "inf", "-inf", "1e40", ""])
def test_labels_that_are_no_numbers(folder, cell):
    table = folder / "labels.csv"
    table.write_text(table.read_text().replace("196.5", cell))
    refused(folder, "line 4, column y", f'"{cell}"')


def test_labels_that_float32_cannot_tell_apart(folder):
    def write(labels):
        lines = [f"{name},{y!r}" for name, y in zip(NAMES, labels, strict=True)]
        (folder / "labels.csv").write_text("name,y\n" + "\n".join(lines))

    minutes = [1.7e9 + 60.0 * i for i in range(20)]
    write(minutes)
    refused(folder, "labels.csv gives labels around 1.7e+09", "subtract the same number")
    write([1e-40 * i for i in range(20)])
    refused(folder, "too little for float32", "a smaller unit")
    write([1990.0 + i for i in range(20)])  # years of birth
    train, held_out = open_labelled(folder, folder / "labels.csv", SIZE, held_out=0.3)
    assert sorted([*train.labels, *held_out.labels]) == [1990 + i for i in range(20)]
    write([y - 1.7e9 for y in minutes])
    open_labelled(folder, folder / "labels.csv", SIZE, held_out=0.3)


def test_other_refusals(folder, tmp_path_factory):
    refused(folder, "nowhere.csv", "cannot read", labels="nowhere.csv")
    refused(folder, "held_out=1.5", held_out=1.5)
    refused(folder, "held_out=1e-09", "none to hold out", held_out=1e-9)
    refused(folder, "none to train on", held_out=1 - 1e-9)
    table = folder / "labels.csv"
    table.write_text("name,age\n")
    refused(folder, "line 1", "name,y")
    table.write_text("name,y\n" + "\n".join(f"{name},4" for name in NAMES))
    refused(folder, "every image the label 4")
    empty = tmp_path_factory.mktemp("empty")
    refused(empty, str(empty), "holds no image")
    with pytest.raises(UserError, match="does not exist"):
        open_labelled(folder / "nowhere", None, SIZE)
