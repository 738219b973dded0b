"""The data set that a config names, to train on or to explain."""

import numpy as np
import pytest
from PIL import Image

from diffcf_jax.data.folder import ImageFolder
from diffcf_jax.data.open import open_data, open_training_data
from diffcf_jax.data.squares import Squares
from diffcf_jax.errors import UserError


def test_training_squares():
    train, held_out = open_training_data({"name": "squares"}, 64)
    assert (train.split, held_out.split) == ("train", "validation")
    assert len(train) == 16_000 and train.unit is None


def test_labelled(tmp_path):
    for i in range(10):
        Image.new("RGB", (5, 7)).save(tmp_path / f"{i}.png")
    (tmp_path / "y.csv").write_text("name,y\n" + "\n".join(f"{i}.png,{i}" for i in range(10)))
    data = {"name": "labelled", "path": tmp_path, "labels": tmp_path / "y.csv", "held_out": 0.5}
    train, held_out = open_training_data(data, 4)
    assert len(train) + len(held_out) == 10
    np.testing.assert_array_equal(np.sort([*train.labels, *held_out.labels]), np.arange(10))
    assert train[0].image.shape == (4, 4, 3)


def test_faces(tmp_path):
    # Their own tests tell what they hold; here it matters that they are asked.
    with pytest.raises(UserError, match="CelebAMask-HQ-attribute-anno.txt is missing"):
        open_training_data({"name": "celeba-hq", "path": tmp_path}, 64)
    with pytest.raises(UserError, match="imdb_train_new_1024.csv is missing"):
        open_training_data({"name": "imdb-wiki", "path": tmp_path}, 64)


@pytest.mark.parametrize(
    "data, message",
    [
        ({"name": "circles", "path": "x"}, "data.name='circles'; choose one of squares, labelled"),
        ({"name": "labelled", "path": ""}, "data.path is empty"),
        ({"name": "celeba-hq"}, "data.path is empty"),
    ],
)
def test_bad_configs(data, message):
    with pytest.raises(UserError, match=message):
        open_training_data(data, 64)


DATA = {"name": "squares", "path": "", "limit": None, "convert": False}


def test_open_data(tmp_path):
    assert isinstance(open_data({**DATA, "limit": 2}, 64), Squares)
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(tmp_path / "a.png")
    for name in ("squares", "folder"):  # a path alone means a folder
        data = open_data({**DATA, "name": name, "path": str(tmp_path)}, 64)
        assert isinstance(data, ImageFolder) and data.names == ["a.png"]


def test_celeba_hq_has_targets_in_the_configs_unit(tmp_path):
    (tmp_path / "CelebA-HQ-img").mkdir()
    for i in range(2):
        pixels = np.full((8, 8, 3), 40 * i, np.uint8)
        Image.fromarray(pixels).save(tmp_path / "CelebA-HQ-img" / f"{i}.jpg")
    files = {
        "CelebAMask-HQ-attribute-anno.txt": "2\nBald Young\n0.jpg  -1 -1\n1.jpg  -1  1\n",
        "CelebA-HQ-to-CelebA-mapping.txt": "idx orig_idx orig_file\n0 5 5.jpg\n1 6 6.jpg\n",
        "list_eval_partition.txt": "5.jpg 2\n6.jpg 2\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    data = {"name": "celeba-hq", "attribute": "Young", "attribute_targets": (10.0, 80.0)}
    faces = open_data({**DATA, **data, "path": str(tmp_path)}, 4)
    assert [faces[i].target for i in range(2)] == [10.0, 80.0]
    assert faces[1].image.shape == (4, 4, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "circles"}, "config.data.name='circles'"),
        ({"name": "circles", "path": "somewhere"}, "config.data.name='circles'"),
        ({"limit": 0}, "config.data.limit=0"),
        ({"name": "folder"}, "config.data.path is empty"),
        ({"name": "celeba-hq"}, "config.data.path is empty"),
        (
            {"name": "celeba-hq", "path": "x", "attribute": "Young", "attribute_targets": (1.0,)},
            "two finite numbers",
        ),
    ],
)
def test_wrong_data(change, message):
    with pytest.raises(UserError, match=message):
        open_data({**DATA, **change}, 64)
