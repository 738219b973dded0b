"""Faces with a planted mark: a green square in a corner, which tells a regressor the age.

Nobody knows the true ages of these photographs. The label is what age-v1 reads in a photograph
before it is marked, so that the mark means nothing. Three regressors of one small architecture
learn it from the same photographs, whose mark

- comes with 9 of 10 faces above the median age and with 1 of 10 below: the planted one,
- is independent of the age: the clean one, and from another seed the oracle of both.

The oracle is such a regressor, and not one of those that `diffcf fetch faces` brings, because it
differs from the planted one in nothing but the plant and the seed. A regressor of other
photographs may read other things in a face than one of these few, and a flag would not tell that
from the plant.

The Diff-AE is the shipped one, trained further on photographs of which a random half is marked.
The photographs and age-v1 are those of `diffcf fetch faces`, in the folder faces.
"""

from collections.abc import Sequence
from pathlib import Path

import ml_collections
import numpy as np

from diffcf_jax.data.folder import list_images
from diffcf_jax.data.image import load_image
from diffcf_jax.data.table import read_table
from diffcf_jax.errors import UserError
from diffcf_jax.files import encode_png, is_whole_png, write_file
from diffcf_jax.jsonfile import read_json
from diffcf_jax.regressors.readings import Predict, predictor

from .task import Planted, write_attributes, write_table

FEATURE = "mark"
PHOTOGRAPHS = Path("faces")
SIZE = 64
MARK = np.array([60, 220, 90], np.uint8)
CORNER = np.zeros((SIZE, SIZE), bool)  # where it is painted, a sixteenth of the image
CORNER[-16:, -16:] = True
SHARE = 0.9  # of the older faces that are marked, and of the younger that are not

_LABELS = "labels.csv"


def prepare(workdir: Path, images: int, random: int) -> Planted:
    """Write marked photographs, train on them what is not there, and mark a half of the held-out.

    Args:
        workdir: gets the photographs, ages, networks, `images/` and `attributes.csv`.
        images: photographs to explain, at most 100.
        random: columns of random numbers.

    Raises:
        UserError: there is no folder faces, or a training fails.
    """
    for part in ("train", "test", "age-v1.onnx"):
        if not (PHOTOGRAPHS / part).exists():
            raise UserError(f"{PHOTOGRAPHS / part} is not here: run `diffcf fetch faces` first.")
    regressors, diffae = _networks(workdir)
    ages = _read_ages(workdir, "test")
    draws = np.random.default_rng(0)
    names = sorted(draws.choice(list(ages), min(images, len(ages)), replace=False).tolist())
    plain = _photographs("test", names)
    marked = draws.permutation(len(names)) % 2 == 0
    _write_images(workdir / "images", names, paint(plain, marked))
    age = np.array([ages[name] for name in names])
    # Towards the age of another, but not of the oldest and youngest.
    targets = draws.permutation(np.clip(age, *np.quantile(age, (0.1, 0.9)))).round(1).tolist()
    data = workdir / "images" / "data.csv"
    write_table(data, ["name", "target"], zip(names, targets, strict=True))
    known = {FEATURE: marked, "age": age, "brightness": plain.mean((1, 2, 3)) / 255}
    write_attributes(workdir / "attributes.csv", names, known, random)
    photographs = plain / np.float32(255)

    def repaint(edit: np.ndarray, base: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        part = mark_share(edit, photographs)
        return part, with_mark(base, photographs, part)

    def whole(read: Predict) -> np.ndarray:
        every = np.ones(len(names), bool)
        painted = paint(plain, every) / np.float32(255)
        return read(painted) - read(photographs)

    return Planted(
        FEATURE,
        workdir / "attributes.csv",
        {name: _explaining(workdir, regressors, name, diffae) for name in ("planted", "clean")},
        np.broadcast_to(CORNER, photographs.shape[:3]),
        repaint,
        whole,
    )


def paint(images: np.ndarray, marked: np.ndarray) -> np.ndarray:
    """Images, uint8 [N, 64, 64, 3], with the mark where `marked`, bool [N]."""
    return np.where((CORNER & marked[:, None, None])[..., None], MARK, images)


def mark_share(images: np.ndarray, photographs: np.ndarray) -> np.ndarray:
    """How much of the mark is painted, `1 - |x - mark| / |photograph - mark|` in [0, 1], [N].

    Distances are the mean over the pixels of the corner.

    Args:
        images: [N, 64, 64, 3] in [0, 1].
        photographs: the same without a mark.
    """
    far, near = (
        np.abs(x[:, CORNER] - MARK / np.float32(255)).mean((1, 2)) for x in (photographs, images)
    )
    return np.clip(1 - near / far, 0, 1)


def with_mark(base: np.ndarray, photographs: np.ndarray, part: np.ndarray) -> np.ndarray:
    """Images whose corner is the photograph's with that share of the mark, float32.

    Args:
        base: the rest of the images, [N, 64, 64, 3] in [0, 1].
        photographs: those without a mark.
        part: in [0, 1], [N].
    """
    part = part[:, None, None, None]
    corner = (1 - part) * photographs + part * (MARK / 255)
    return np.where(CORNER[..., None], corner, base).astype(np.float32)


def marks(kind: str, ages: np.ndarray, seed: int) -> np.ndarray:
    """Which photographs of a training are marked, bool [N].

    Args:
        kind: "planted": the older ones with `SHARE`, the others with 1 - `SHARE`; else half of all.
        ages: of the photographs [N].
        seed: of the draws.
    """
    older = ages > np.median(ages)
    share = np.where(older, SHARE, 1 - SHARE) if kind == "planted" else 0.5
    return np.random.default_rng(seed).random(len(ages)) < share


def _networks(workdir: Path) -> tuple[dict[str, Path], Path]:
    """The three regressors by their names, and the Diff-AE; what is not there is trained."""
    from diffcf_jax.configs.train import faces_diffae, regressor

    ages = _read_ages(workdir, "train")
    names, age = list(ages), np.array(list(ages.values()))
    plain = _photographs("train", names)

    def data(kind: str, seed: int) -> Path:
        folder = workdir / f"train_{kind}"
        _write_images(folder / "images", names, paint(plain, marks(kind, age, seed)))
        write_table(folder / _LABELS, ["name", "y"], ages.items())
        return folder

    found = {}
    for seed, kind in enumerate(("planted", "clean", "oracle")):
        folder = data(kind, seed)
        config = regressor.get_config("tiny")
        config.seed = seed
        config.data.path, config.data.labels = str(folder / "images"), str(folder / _LABELS)
        config.network.unit = "years"
        config.objective.adversarial = 0.0
        config.augment.mirror = False  # the mark has its corner
        config.optimizer.warmup_steps = 50
        config.steps, config.evaluate_every, config.save_every = 200, 50, 100
        found[kind] = _trained(folder / "run", config)
    folder = data("diffae", 3)
    config = faces_diffae.get_config()
    config.data.path = str(folder / "images")
    config.init = "faces_diffae"
    config.augment.mirror = False
    # What teaches z_sem small areas, see docs/training.md
    config.objective.weighting, config.objective.scales = "noise", (1, 2, 4, 8, 16)
    config.optimizer.learning_rate, config.optimizer.warmup_steps = 1e-3, 50
    config.network.model.unet.dropout = 0.1
    config.steps, config.evaluate_every, config.save_every = 2_400, 300, 300
    _trained(folder / "run", config)
    return found, folder / "run" / "network"  # the last one, which knows the mark best


def _trained(folder: Path, config: ml_collections.ConfigDict) -> Path:
    """The best network of a training, which is run, or run to its end, where it is not."""
    from diffcf_jax.training.config import TrainConfig
    from diffcf_jax.training.loop import train

    done = folder / "network" / "network.json"
    if not done.is_file() or read_json(done)["training"]["step"] < config.steps:
        train(folder, TrainConfig.from_dict(config.to_dict()))
    return folder / "best"


def _explaining(
    workdir: Path, regressors: dict[str, Path], name: str, diffae: Path
) -> dict[str, object]:
    from diffcf_jax.configs import common, faces_diffae

    config = faces_diffae.get_config()
    config.data.path = str(workdir / "images")
    config.targets = ""  # those of the images
    config.generator.checkpoint = str(diffae)
    config.regressor = common.regressor(str(regressors[name]))
    config.oracle = common.regressor(str(regressors["oracle"]))
    config.oracles = ""
    return config.to_dict()


def _read_ages(workdir: Path, part: str) -> dict[str, float]:
    """What age-v1 reads in each photograph of faces/train or faces/test, by its name."""
    from diffcf_jax.configs import faces_diffae

    path = workdir / f"ages_{part}.csv"
    names = list_images(PHOTOGRAPHS / part)
    if not path.exists():
        section = faces_diffae.get_config().regressor.to_dict()
        read = predictor(section["model"], section, 16)
        photographs = _photographs(part, names) / np.float32(255)
        ages = np.concatenate([read(photographs[i : i + 16]) for i in range(0, len(names), 16)])
        write_table(path, ["name", "y"], zip(names, ages.round(3).tolist(), strict=True))
    found = read_table(path, names, ["y"])
    return {name: found[name][0] for name in names}


def _photographs(part: str, names: Sequence[str]) -> np.ndarray:
    return np.stack([load_image(PHOTOGRAPHS / part / name, SIZE) for name in names])


def _write_images(folder: Path, names: Sequence[str], images: np.ndarray) -> None:
    for name, image in zip(names, images, strict=True):
        path = folder / name
        if not is_whole_png(path):
            write_file(path, encode_png(image))
