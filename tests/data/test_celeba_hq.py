"""CelebA-HQ from a small folder of its structure: splits, attributes, targets, what is missing."""

import io
import pickle
import sys

import numpy as np
import pytest
from PIL import Image

from diffcf_jax.data.celeba_hq import ATTRIBUTES, IMAGES, MAPPING, PARTITION, TFDS, CelebAHQ
from diffcf_jax.errors import UserError

COUNT = 12
SPLIT_OF = "012" * 4  # image i is in train, validation, test, train, ...
YOUNG = [i % 2 for i in range(COUNT)]


def make_tables(folder):
    names = ["Bald", "Smiling", "Young"]
    lines = [str(COUNT), " ".join(names) + " "]
    lines += [f"{i}.jpg  {1 if i == 4 else -1} 1 {2 * YOUNG[i] - 1}" for i in range(COUNT)]
    (folder / ATTRIBUTES).write_text("\n".join(lines) + "\n")
    # CelebA numbers its images otherwise.
    originals = [f"{9 * i + 5:06d}.jpg" for i in range(COUNT)]
    lines = ["idx  orig_idx  orig_file"]
    lines += [f"{i}      {9 * i + 4}  {original}" for i, original in enumerate(originals)]
    (folder / MAPPING).write_text("\n".join(lines) + "\n")
    lines = [f"{original} {part}" for original, part in zip(originals, SPLIT_OF, strict=True)]
    (folder / PARTITION).write_text("\n".join(["000001.jpg 0", *reversed(lines)]) + "\n")


@pytest.fixture
def folder(tmp_path):
    make_tables(tmp_path)
    (tmp_path / IMAGES).mkdir()
    for i in range(COUNT):
        Image.new("RGB", (32, 32), (20 * i, 0, 0)).save(tmp_path / IMAGES / f"{i}.jpg", quality=95)
    return tmp_path


def refused(folder, *words, **kwargs):
    with pytest.raises(UserError) as error:
        CelebAHQ(folder, **kwargs)
    sentence = str(error.value)
    assert "\n" not in sentence
    for word in words:
        assert word in sentence, sentence


def test_splits(folder):
    found = {split: CelebAHQ(folder, split).names for split in ("train", "validation", "test")}
    assert found == {
        "train": ["0.jpg", "3.jpg", "6.jpg", "9.jpg"],
        "validation": ["1.jpg", "4.jpg", "7.jpg", "10.jpg"],
        "test": ["2.jpg", "5.jpg", "8.jpg", "11.jpg"],
    }
    (folder / PARTITION).unlink()
    assert CelebAHQ(folder, "all").names == [f"{i}.jpg" for i in range(COUNT)]


def test_records(folder):
    data = CelebAHQ(folder, image_size=16)
    assert [record.name for record in data] == data.names
    assert [record.id for record in data] == [0, 1, 2, 3]
    for record in data:
        i = int(record.name[:-4])
        assert record.image.shape == (16, 16, 3) and record.image.dtype == np.uint8
        assert np.abs(record.image[..., 0].astype(int) - 20 * i).max() <= 4
        assert record.target == (0.8 if YOUNG[i] else 0.1)
        assert record.y is None and record.mask is None
    with pytest.raises(IndexError):
        data[4]
    np.testing.assert_array_equal(data.labels, [0, 1, 0, 1])
    assert data.labels.dtype == np.float32 and data.unit is None


def test_attributes_targets_and_limit(folder):
    data = CelebAHQ(folder, "all", limit=5, target_attribute="Bald", targets=(10, 60))
    assert data.attribute_names == ["Bald", "Smiling", "Young"]
    expected = [[i == 4, True, YOUNG[i]] for i in range(5)]
    np.testing.assert_array_equal(data.attributes, np.array(expected, bool))
    assert data.attributes.dtype == bool
    assert [record.target for record in data] == [10, 10, 10, 10, 60]


@pytest.mark.parametrize(
    "name, source",
    [(ATTRIBUTES, "CelebAMask-HQ"), (MAPPING, "CelebAMask-HQ"), (PARTITION, "CelebA.html")],
)
def test_missing_tables(folder, name, source):
    (folder / name).unlink()
    refused(folder, str(folder / name), "is missing", "https://", source)


def test_missing_images(folder):
    (folder / IMAGES / "5.jpg").unlink()
    refused(folder, IMAGES, "lacks 1 of the 4 images (split test), such as 5.jpg", "https://")
    CelebAHQ(folder, "train")
    (folder / IMAGES).rename(folder / "elsewhere")
    refused(folder, str(folder / IMAGES), "is missing", TFDS, "https://")
    refused(folder / "nowhere", "not a folder", "data.path")


def test_bad_arguments_and_tables(folder):
    refused(folder, 'no split "dev"', "train, validation, test or all", split="dev")
    refused(folder, '"Old"', "Bald, Smiling, Young", target_attribute="Old")
    text = (folder / ATTRIBUTES).read_text()
    (folder / ATTRIBUTES).write_text(text.replace("3.jpg  -1", "3.jpg  2"))
    refused(folder, ATTRIBUTES, "line 6")
    (folder / ATTRIBUTES).write_text(text)
    partition = (folder / PARTITION).read_text().splitlines()
    (folder / PARTITION).write_text("\n".join(partition[:-1]))
    refused(folder, PARTITION, "000005.jpg")
    (folder / PARTITION).write_text("000001.jpg\n")
    refused(folder, PARTITION, "line 1", "2 columns")


def test_images_that_tfds_prepared(tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets")

    class CelebAHq(tfds.core.GeneratorBasedBuilder):
        name = "celeb_a_hq"
        first = 0
        VERSION = tfds.core.Version("2.0.0")
        BUILDER_CONFIGS = [tfds.core.BuilderConfig(name="256")]

        def _info(self):
            image = tfds.features.Image(shape=(32, 32, 3), encoding_format="png")
            return tfds.core.DatasetInfo(
                builder=self,
                features=tfds.features.FeaturesDict(
                    {"image": image, "image/filename": tfds.features.Text()}
                ),
            )

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for i in range(COUNT):
                png = io.BytesIO()
                Image.new("RGB", (32, 32), (20 * i, 0, 0)).save(png, format="png")
                name = f"data256x256/{i + self.first:05d}.jpg"
                yield name, {"image": io.BytesIO(png.getvalue()), "image/filename": name}

    for CelebAHq.first in (0, 1):
        folder = tmp_path / str(CelebAHq.first)
        folder.mkdir()
        make_tables(folder)
        builder = CelebAHq(data_dir=folder, config="256", file_format="array_record")
        builder.download_and_prepare()
        data = pickle.loads(pickle.dumps(CelebAHQ(folder, image_size=16)))  # as for a worker
        assert data.names == ["2.jpg", "5.jpg", "8.jpg", "11.jpg"]
        for record in data:
            assert record.image.shape == (16, 16, 3)
            assert (record.image[..., 0] == 20 * int(record.name[:-4])).all()
    assert "tensorflow" not in sys.modules
