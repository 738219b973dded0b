"""IMDB-WIKI-clean: photos of faces with their ages, cropped like CelebA-HQ.

    python -m diffcf_jax.data.imdb_wiki IMDB_CLEAN OUT [--image-size 256] [--workers 8]

cuts the faces out of the photos once, in the crop of CelebA-HQ, and writes them to OUT, which
`open_imdb_wiki` reads. IMDB_CLEAN is a clone of https://github.com/yiminglin-ai/imdb-clean in which
its `run_all.sh` has been run:

    csvs/imdb_train_new_1024.csv, imdb_valid_new_1024.csv, imdb_test_new_1024.csv
    csvs/imdb_1024_retinaface_predictions.csv
    data/imdb-clean-1024/00/....jpg ...

OUT holds the three tables of ages, the crops under the photos' names, and is also what the
originals' own cropping makes. A crop that exists is not made again, so a stopped run goes on.
"""

import csv
import functools
import itertools
import os
import pathlib
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import tqdm
from absl import flags
from PIL import Image

from diffcf_jax import cli
from diffcf_jax.data.face_crop import crop_face
from diffcf_jax.data.folder import list_images
from diffcf_jax.data.image import to_srgb
from diffcf_jax.data.labelled import LabelledImages
from diffcf_jax.data.table import number
from diffcf_jax.errors import UserError

TABLES = {split: f"imdb_{split[:5]}_new_1024.csv" for split in ("train", "validation", "test")}
LANDMARKS = "imdb_1024_retinaface_predictions.csv"
PHOTOS = "data/imdb-clean-1024"
LARGEST_BAD_SHARE = 0.01

_POINTS = ("lefteye", "righteye", "nose", "leftmouth", "rightmouth")
_COLUMNS = [f"{point}_{axis}" for point in _POINTS for axis in "xy"]
_SOURCE = "run_all.sh of https://github.com/yiminglin-ai/imdb-clean makes it"


def open_imdb_wiki(
    path: str | os.PathLike, split: str, image_size: int = 256, limit: int | None = None
) -> LabelledImages:
    """Open the cropped images of a split; their labels are ages in years.

    Args:
        path: the folder with the crops and the tables of ages, see the module; "~" is the home
            directory.
        split: "train", "validation" or "test".
        image_size: width and height of the records' images, in pixels.
        limit: keep only the first `limit` images. None: all of them.

    Raises:
        UserError: unknown split; a table or an image is missing; a bad age.
    """
    path = pathlib.Path(path).expanduser()
    if split not in TABLES:
        raise UserError(f'IMDB-WIKI has no split "{split}": use {", ".join(TABLES)}')
    if (path / "csvs").is_dir() and not (path / TABLES[split]).exists():
        raise UserError(
            f"{path} holds IMDB-WIKI-clean as downloaded: cut out its faces once with "
            f"python -m diffcf_jax.data.imdb_wiki {path} OUT and give the folder OUT"
        )
    table = path / TABLES[split]
    rows = _read_table(table, ["age"])
    ages = {name: number(row["age"], table, line, "age") for name, (line, row) in rows.items()}
    there = set(list_images(path))
    missing = [name for name in ages if name not in there]
    if missing:
        raise UserError(
            f"{path} lacks {len(missing)} of the {len(ages)} images in {TABLES[split]}, such as "
            f"{missing[0]}: run python -m diffcf_jax.data.imdb_wiki again"
        )
    names = list(ages)[:limit]
    return LabelledImages(path, names, [ages[name] for name in names], image_size, unit="years")


def crop_all(
    source: pathlib.Path,
    out: pathlib.Path,
    image_size: int = 256,
    workers: int | None = None,
    crop_size: int = 1024,
) -> dict[str, str]:
    """Crop every face of IMDB-WIKI-clean and writes the tables of ages beside the crops.

    A face is cropped as in CelebA-HQ, then reduced (bilinear, antialiased) and saved as JPEG of
    quality 95. A photo that cannot be cropped is left out of the tables.

    Args:
        source: IMDB-WIKI-clean, see the module.
        out: gets the crops and the tables.
        image_size: width and height of the crops, in pixels.
        workers: threads; None is one per core (Pillow works outside of Python's lock).
        crop_size: width and height of the crops before they are reduced; CelebA-HQ has 1024.

    Returns:
        By name, why a photo was left out.

    Raises:
        UserError: a table is missing or bad; more than 1% of the photos cannot be cropped.
    """
    tables = {split: _read_table(source / "csvs" / name, ["age"]) for split, name in TABLES.items()}
    landmarks = _read_table(source / "csvs" / LANDMARKS, _COLUMNS)
    if not (source / PHOTOS).is_dir():
        raise UserError(f"{source / PHOTOS} is missing: {_SOURCE}")

    names = list(itertools.chain.from_iterable(tables.values()))
    photos = itertools.repeat(source / PHOTOS)
    crop = functools.partial(_crop_file, out=out, image_size=image_size, crop_size=crop_size)
    bad: dict[str, str] = {}
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        reasons = pool.map(crop, photos, names, map(landmarks.get, names))
        pairs = zip(names, reasons, strict=True)
        for name, reason in tqdm.tqdm(pairs, total=len(names), unit="photo"):
            if reason is not None:
                bad[name] = reason
            if len(bad) > LARGEST_BAD_SHARE * len(names):
                pool.shutdown(cancel_futures=True)
                raise UserError(
                    f"{len(bad)} of {len(names)} photos cannot be cropped, more than "
                    f"{LARGEST_BAD_SHARE:.0%}: {next(iter(bad.values()))}"
                )
    for split, rows in tables.items():
        with (out / TABLES[split]).open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["filename", "age"])
            writer.writerows([n, row["age"]] for n, (_, row) in rows.items() if n not in bad)
    return bad


def _crop_file(
    photos: pathlib.Path,
    name: str,
    landmarks: tuple[int, dict[str, str]] | None,
    out: pathlib.Path,
    image_size: int,
    crop_size: int,
) -> str | None:
    """Write one crop; why not, if it cannot be made."""
    path = out / name
    if path.exists():
        return None
    if landmarks is None:
        return f"{name} has no line in {LANDMARKS}"
    line, cells = landmarks
    try:
        points = [number(cells[column], LANDMARKS, line, column) for column in _COLUMNS]
        points = np.reshape(points, (5, 2))
        with Image.open(photos / name) as photo:
            face = crop_face(to_srgb(photo), points, crop_size)
    # Damaged files raise nearly anything.
    except Exception as error:
        return f"{photos / name} cannot be cropped ({type(error).__name__}: {error})"
    path.parent.mkdir(parents=True, exist_ok=True)
    if face.width != image_size:
        face = face.resize((image_size, image_size), Image.Resampling.BILINEAR)
    unfinished = path.with_name(f".{path.name}")  # hidden files count as no image
    face.save(unfinished, format="jpeg", quality=95)
    os.replace(unfinished, path)
    return None


def _read_table(path: pathlib.Path, columns: list[str]) -> dict[str, tuple[int, dict[str, str]]]:
    """Line number and the columns' cells of each file name; other columns are of no interest."""
    if not path.is_file():
        raise UserError(f"{path} is missing: {_SOURCE}")
    rows: dict[str, tuple[int, dict[str, str]]] = {}
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        lacking = [c for c in ["filename", *columns] if c not in (reader.fieldnames or ())]
        if lacking:
            raise UserError(f"{path}, line 1: there is no column {lacking[0]}: {_SOURCE}")
        for row in reader:
            name = row["filename"]
            if any(row[column] is None for column in columns):
                raise UserError(f"{path}, line {reader.line_num}: too few columns: {_SOURCE}")
            if name in rows:
                raise UserError(
                    f'{path}, line {reader.line_num}: "{name}" is already in line {rows[name][0]}: '
                    "remove one of the two"
                )
            rows[name] = reader.line_num, {column: row[column] for column in columns}
    return rows


def _define(values: flags.FlagValues) -> None:
    flags.DEFINE_integer("image_size", 256, "In pixels.", lower_bound=1, flag_values=values)
    flags.DEFINE_alias("image-size", "image_size", flag_values=values)
    flags.DEFINE_integer(
        "workers", None, "Threads; one per core without it.", lower_bound=1, flag_values=values
    )


def _crop(args: flags.FlagValues, arguments: list[str]) -> None:
    source, out = (pathlib.Path(argument).expanduser() for argument in arguments)
    bad = crop_all(source, out, args.image_size, args.workers)
    for reason in bad.values():
        print(f"left out: {reason}", file=sys.stderr)
    print(f"{out}: cropped faces, {len(bad)} photos left out")


main = cli.Command(
    program="python -m diffcf_jax.data.imdb_wiki",
    about="Cuts the faces out of IMDB-WIKI-clean like CelebA-HQ.",
    run=_crop,
    define=_define,
    arguments=("IMDB_CLEAN", "OUT"),
)

if __name__ == "__main__":
    sys.exit(main())
