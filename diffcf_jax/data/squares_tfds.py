"""The squares data set for users of TensorFlow Datasets; TensorFlow itself is not needed.

Needs the packages of `pip install diffcf_jax[tfds]`. Importing this module registers the builder
with TFDS, which then finds it by its name and writes its files once (about 30 s, 170 MB):

    import tensorflow_datasets as tfds
    import diffcf_jax.data.squares_tfds

    source = tfds.data_source("squares", split="validation")
    source[0]["image"]  # uint8 [64, 64, 3]

With a folder of one's own TFDS must be told the file format that is read without TensorFlow:
`tfds.data_source("squares", data_dir=..., builder_kwargs={"file_format": "array_record"})`, or
`tfds.builder("squares", data_dir=..., file_format="array_record")`.
"""

import io

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from diffcf_jax.data import squares


class Squares(tfds.core.GeneratorBasedBuilder):
    """Builder of the splits train (16,000 images) and validation (630), in their own order.

    An example has `name`, `image` (uint8 [64, 64, 3]), `label` and `target` (float32) and `mask`
    (bool [64, 64], the inner square): the fields of `diffcf_jax.data.Record`.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "The paper's data set."}

    def _info(self) -> tfds.core.DatasetInfo:
        size = squares.IMAGE_SIZE
        return self.dataset_info_from_configs(
            description="A red 8x8 square with a grey border on a grey background, with noise.",
            features=tfds.features.FeaturesDict(
                {
                    "name": tfds.features.Text(),
                    "image": tfds.features.Image(shape=(size, size, 3), encoding_format="png"),
                    "label": np.float32,
                    "target": np.float32,
                    "mask": tfds.features.Tensor(shape=(size, size), dtype=np.bool_),
                }
            ),
            supervised_keys=("image", "label"),
            homepage="https://github.com/DevinTDHa/Diffusion-Counterfactuals-for-Image-Regressors",
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split) for split in ("train", "validation")}

    def _generate_examples(self, split: str):
        for record in squares.Squares(split):
            # TFDS encodes arrays with TensorFlow, but takes encoded images as they are.
            png = io.BytesIO()
            Image.fromarray(record.image).save(png, format="png")
            yield (
                record.id,
                {
                    "name": record.name,
                    "image": io.BytesIO(png.getvalue()),
                    "label": record.y,
                    "target": record.target,
                    "mask": record.mask,
                },
            )
