"""The data set that a training config names."""

import numpy as np
import pytest
from PIL import Image

from diffcf_jax.data.open import open_training_data
from diffcf_jax.errors import UserError


def test_squares():
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
