"""The TFDS builder; runs where the extra packages are installed."""

import sys

import numpy as np
import pytest

from diffcf_jax.data.squares import Squares

tfds = pytest.importorskip("tensorflow_datasets")
squares_tfds = pytest.importorskip("diffcf_jax.data.squares_tfds")


def test_data_source_without_tensorflow(tmp_path):
    source = tfds.data_source(
        "squares",
        data_dir=tmp_path,
        builder_kwargs={"file_format": "array_record"},
        download_and_prepare_kwargs={
            "download_config": tfds.download.DownloadConfig(max_examples_per_split=20)
        },
    )
    assert set(source) == {"train", "validation"}
    for split, examples in source.items():
        assert len(examples) == 20
        for record, example in zip(Squares(split, limit=20), examples, strict=True):
            np.testing.assert_array_equal(example["image"], record.image)
            np.testing.assert_array_equal(example["mask"], record.mask)
            assert example["image"].dtype == np.uint8 and example["mask"].dtype == bool
            assert example["name"].decode() == record.name
            assert np.float32(example["label"]) == np.float32(record.y)
            assert np.float32(example["target"]) == np.float32(record.target)
    assert "tensorflow" not in sys.modules
