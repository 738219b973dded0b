"""The command `diffcf check-regressor`."""

import functools
from pathlib import Path

import numpy as np
from absl import flags
from PIL import Image, ImageDraw

from diffcf_jax import cli, shipped
from diffcf_jax.data.folder import ImageFolder
from diffcf_jax.data.table import read_table
from diffcf_jax.errors import UserError
from diffcf_jax.files import encode_png, write_file
from diffcf_jax.regressors.check import Findings, check_regressor
from diffcf_jax.regressors.load import load_regressor
from diffcf_jax.units import Unit

_TILE, _TEXT = 128, 14  # pixels of the picture


def picture(images: np.ndarray, findings: Findings, labels: np.ndarray | None) -> np.ndarray:
    """Return images over the size of their gradients, with their predictions, uint8 [H, W, 3]."""
    sheet = Image.new("RGB", (_TILE * len(images), 2 * _TILE + _TEXT), "white")
    draw = ImageDraw.Draw(sheet)
    sizes = np.sqrt(np.square(findings.gradients).sum(-1))
    for i, (image, size) in enumerate(zip(images, sizes, strict=True)):
        map_ = np.nan_to_num(size / max(float(size.max()), 1e-30))[..., None].repeat(3, -1)
        for row, tile in enumerate((image, map_)):
            pixels = Image.fromarray((255 * tile + 0.5).astype(np.uint8))
            sheet.paste(pixels.resize((_TILE, _TILE)), (i * _TILE, _TEXT + row * _TILE))
        text = f"{findings.values[i]:.4g}"
        if labels is not None and np.isfinite(labels[i]):
            text += f" (label {labels[i]:.4g})"
        draw.text((i * _TILE + 3, 1), text, fill="black")
    return np.asarray(sheet)


def _define(values: flags.FlagValues) -> None:
    cli.define_path(values, "images", "A folder of images such as those to explain.")
    cli.define_path(values, "labels", "A table (name,label) of some of the images.")
    cli.define_path(values, "workdir", "The folder for check.txt and check.png.")
    flags.DEFINE_string(
        "preprocess", "", "What is done to images first, such as imagenet or 'range=255'.",
        flag_values=values,
    )  # fmt: skip
    flags.DEFINE_string(
        "output", "", "How outputs become a prediction, such as 'expectation=0..80'.",
        flag_values=values,
    )  # fmt: skip
    flags.DEFINE_string("unit", "", "Of the predictions, such as years.", flag_values=values)
    flags.DEFINE_integer(
        "size", 256, "Of the generator's images, in pixels.", lower_bound=1, flag_values=values
    )
    flags.DEFINE_integer(
        "limit", 8, "How many images to look at.", lower_bound=1, flag_values=values
    )


def _check(args: flags.FlagValues, arguments: list[str]) -> int:
    regressor = load_regressor(arguments[0], args.preprocess, args.output, Unit(args.unit or None))
    folder = ImageFolder(args.images, args.size, convert=True, limit=args.limit)
    images = np.stack([folder[i].image for i in range(len(folder))]).astype(np.float32) / 255
    labels = None
    if args.labels:
        table = read_table(args.labels, set(_all_names(args.images, args.size)), ["label"])
        labels = np.array([table.get(name, (np.nan,))[0] for name in folder.names], np.float64)
        if not np.isfinite(labels).any():
            raise UserError(f"{args.labels} has no label for the first {len(labels)} images.")
    findings = check_regressor(regressor, images, labels)
    print("\n".join(findings.lines))
    if args.workdir:
        text = "\n".join(findings.lines) + "\n"
        write_file(Path(args.workdir) / "check.txt", text.encode())
        write_file(Path(args.workdir) / "check.png", encode_png(picture(images, findings, labels)))
        print(f"written: {args.workdir / 'check.txt'} and check.png")
    return 1 if findings.problems else 0


def _all_names(path: Path, size: int) -> list[str]:
    return ImageFolder(path, size).names


main = cli.Command(
    program=functools.partial(shipped.command, "check-regressor"),
    about="""Checks how a regressor is read: its predictions, gradients and pre-processing.

MODEL is a file (.onnx, .keras, .jax), a network directory, or package.module:name. The exit status
is 1 when something is wrong.""",
    run=_check,
    define=_define,
    arguments=("MODEL",),
    required=("images",),
)
