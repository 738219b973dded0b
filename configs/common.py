"""What the configs share; a config of your own can use it as well.

from diffcf_jax.configs import common
"""

import dataclasses
from typing import TYPE_CHECKING, Any

import ml_collections
from ml_collections.config_dict import placeholder

if TYPE_CHECKING:
    from diffcf_jax.counterfactual.options import Options

SIZES = ("tiny", "small", "paper")

# The paper's regressor and oracle of ages, which have to be fetched and converted once.
_AGE_RELEASES = (
    "https://github.com/DevinTDHa/Diffusion-Counterfactuals-for-Image-Regressors/releases"
)
# Of `config.regressor` and `config.oracle`: a model from outside in place of the checkpoint.
MODEL = dict(
    model="",  # a file such as age.onnx, or package.module:name; see docs/own-regressor.md
    preprocess="",  # such as "imagenet", or "range=255 mean=122.8,117,104.3 std=256"
    output="",  # such as "column=1" or "expectation=0..80"
    labels="",  # range of its training labels where that is not known: targets outside are marked
)
_AGE_UNIT = dict(unit="years", mean=0.0, scale=100.0)  # the network predicts (age - mean) / scale
AGE_REGRESSOR = dict(
    checkpoint="checkpoints/age_regressor",
    original=f"last.ckpt of the imdb-wiki-clean regressor in {_AGE_RELEASES}",
    convert="imdb-clean/version_0/checkpoints/last.ckpt --kind densenet-regressor "
    "--preset celebahq",
    **MODEL,
    **_AGE_UNIT,
)
AGE_ORACLE = dict(
    checkpoint="checkpoints/age_oracle",
    original="last.ckpt of the imdb-wiki-clean oracle in the same releases",
    convert="imdb-clean_oracle/version_0/checkpoints/last.ckpt --kind densenet-regressor "
    "--preset celebahq",
    **MODEL,
    **_AGE_UNIT,
)
# Of what `diffcf fetch faces` puts into the folder faces
# What can be explained of the faces, and towards which ages
_FACES_REGRESSORS = {
    "age_v1": dict(
        model="faces/age-v1.onnx",
        preprocess="range=255 mean=122.782,117.001,104.298 std=256",
        output="expectation=0..80",
        mean=35.2,  # and scale: of its predictions for faces/train
        scale=11.3,
    ),
    "expert": dict(
        model="faces/face_age_expert.keras",
        preprocess="size=200x200 method=lanczos",
        output="",
        mean=37.4,
        scale=13.3,
    ),
}
_FACES_TARGETS = {"age_v1": "20,40,60,80", "expert": "20,40,60"}


def regressor(checkpoint: str) -> dict[str, Any]:
    """Returns `config.regressor` or `config.oracle`: a network directory, or a `model`."""
    unit = dict(unit=placeholder(str), mean=placeholder(float), scale=placeholder(float))
    return dict(checkpoint=checkpoint, **MODEL, **unit)


def explaining(data: dict[str, Any], batch_size: str) -> ml_collections.ConfigDict:
    """Returns what every config for explaining has besides method and networks.

    Args:
        data: `name`, a data set ("squares", "celeba-hq" or "folder"), and its own options.
        batch_size: a number, as text, or "auto": as many as fit into the memory. It changes no
            result.
    """
    config = ml_collections.ConfigDict()
    config.data = dict(
        path="",  # the folder, except for the squares
        limit=placeholder(int),  # explain only the first ones
        convert=False,  # fit a folder's images of other sizes and modes
        masks="",  # a folder of masks under the images' names, white where an image may change
        mask="",  # or a box, "x0,y0,x1,y1" in pixels
        mask_control="",  # "inverse" or "random": masks to compare with, instead
    )
    config.data.update(data)
    # "0.2,0.8", "40..50" (anything within) or "min,max": every image gets every target; "": those
    # of the data set
    config.targets = ""
    # "a,b": more oracles beside config.oracle, each a network directory, file or
    # package.module:name; what they read is written into the results
    config.oracles = ""
    config.batch_size = batch_size
    config.seed = 0
    return config


def explaining_faces(options: "Options", explained: str) -> ml_collections.ConfigDict:
    """Returns what the configs for the photographs of `diffcf fetch faces` have but the generator.

    Args:
        options: of the method.
        explained: the regressor, "age_v1" or "expert", which needs Keras.

    Raises:
        ValueError: there is no such regressor.
    """
    if explained not in _FACES_REGRESSORS:
        raise ValueError(f"unknown regressor '{explained}': use {' or '.join(_FACES_REGRESSORS)}")
    config = explaining(data=dict(name="folder", path="faces/test"), batch_size="8")
    config.targets = _FACES_TARGETS[explained]
    config.method = method(options)
    config.regressor = dict(
        checkpoint="", unit="years", fetch="faces", **_FACES_REGRESSORS[explained]
    )
    config.oracle = regressor("faces/face_api")  # only for evaluation, and so are the oracles
    config.oracles = "faces/faceres"
    return config


def method(options: "Options") -> dict[str, Any]:
    """Returns `config.method`: the method's name and all its options, see their docstring."""
    return dict(name=options.name, **dataclasses.asdict(options))


def training(seed: int, batch_size: int) -> ml_collections.ConfigDict:
    """Returns what every config for training has, with the values that most of them keep."""
    config = ml_collections.ConfigDict()
    config.seed = seed
    config.batch_size = batch_size
    config.accumulate = 1  # parts that a batch is worked on in, one after the other; saves memory
    config.precision = "float32"  # "bfloat16" for TPUs and recent GPUs
    config.ema_decay = 0.999
    config.init = ""  # a network directory to start from, or the name of a shipped network
    log_and_save(config, log=50, save=500)
    return config


def log_and_save(config: ml_collections.ConfigDict, log: int, save: int) -> None:
    """Sets the updates between two lines of the log, and between two checkpoints."""
    config.log_every = log
    config.evaluate_every = save
    config.save_every = save


def labelled_images() -> dict[str, Any]:
    """Returns `data` for training on a folder: its path, its table, the share to hold out.

    `name` can also be "celeba-hq" (the label: Young or not) or "imdb-wiki".
    """
    return dict(name="labelled", path="", labels="", held_out=0.1)


def fold_patches(config: ml_collections.ConfigDict) -> Any:
    """Returns the patch size of a tiny network, which follows `config.image_size`.

    Patches of 2x2 pixels, from 48 pixels on of 4x4, are folded into channels.
    """
    below_48 = 1 // (1 + config.get_ref("image_size") // 48)
    return 4 - 2 * below_48


def check_size(size: str) -> None:
    """Refuses a size that is not in `SIZES`."""
    if size not in SIZES:
        raise ValueError(f"unknown size '{size}': use tiny, small or paper")
