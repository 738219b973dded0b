"""The package as pip installs it: what it declares, what it holds, and that it runs by itself."""

import ast
import functools
import json
import os
import re
import shutil
import site
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("diffcf_jax", "configs", "eval")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

# Import name -> distribution, where they differ.
DISTRIBUTIONS = {"PIL": "pillow", "absl": "absl-py", "orbax": "orbax-checkpoint"}
OPTIONAL = {
    *("keras", "matplotlib", "onnxruntime", "pandas", "tensorflow_datasets"),
    *("torch", "torchmetrics"),
}
ORIGINALS = set((ROOT / "eval" / "speed").glob("originals*.py"))  # run in their environment


def canonical(requirement):
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement).group()).lower()


@functools.cache
def imports():
    """Every third-party module that the sources import, with a file that does."""
    found = {}
    for folder in SOURCES:
        for path in set((ROOT / folder).rglob("*.py")) - ORIGINALS:
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                if isinstance(node, ast.ImportFrom) and node.level == 0:
                    names = [node.module]
                found |= {name.split(".")[0]: path for name in names}
    return {
        name: path
        for name, path in found.items()
        if name not in sys.stdlib_module_names | set(SOURCES)
    }


def test_every_import_is_declared():
    project = PYPROJECT["project"]
    required = {canonical(name) for name in project["dependencies"]}
    extras = {
        canonical(name) for names in project["optional-dependencies"].values() for name in names
    }
    for module, path in imports().items():
        if module in OPTIONAL:
            assert canonical(module) in extras, path
        else:
            assert canonical(DISTRIBUTIONS.get(module, module)) in required, (module, path)


def test_every_dependency_is_imported():
    imported = {canonical(DISTRIBUTIONS.get(module, module)) for module in imports()}
    required = {canonical(name) for name in PYPROJECT["project"]["dependencies"]}
    assert required <= imported


def test_every_folder_is_a_package():
    folders = {path.parent for name in SOURCES for path in (ROOT / name).rglob("*.py")}
    names = {folder.relative_to(ROOT).as_posix().replace("/", ".") for folder in folders}
    names = {name if name.startswith("diffcf_jax") else f"diffcf_jax.{name}" for name in names}
    assert set(PYPROJECT["tool"]["setuptools"]["packages"]) == names | {"diffcf_jax.checkpoints"}
    assert all((folder / "__init__.py").is_file() for folder in folders)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel that is built from the sdist, which is built from a copy of the clone."""
    folder = tmp_path_factory.mktemp("build")
    clone = folder / "clone"
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in (*SOURCES, "checkpoints"):
        shutil.copytree(ROOT / name, clone / name, ignore=ignored)
    for path in ROOT.iterdir():
        if path.is_file() and not path.name.startswith("."):
            shutil.copy(path, clone)
    build(clone, "sdist", folder)
    (sdist,) = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    build(folder / sdist.name.removesuffix(".tar.gz"), "wheel", folder)
    (path,) = folder.glob("*.whl")
    return path


def build(source, kind, out):
    code = f"import sys; from setuptools import build_meta as b; b.build_{kind}(sys.argv[1])"
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(out)], cwd=source, check=True,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip


def test_the_wheel_holds_configs_checkpoints_and_types(wheel):
    with zipfile.ZipFile(wheel) as archive:
        sizes = {info.filename: info.compress_size for info in archive.infolist()}
    names = set(sizes)
    for name in SOURCES + ("checkpoints",):
        target = "diffcf_jax" if name == "diffcf_jax" else f"diffcf_jax/{name}"
        for path in (ROOT / name).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                assert f"{target}/{path.relative_to(ROOT / name).as_posix()}" in names
    assert "diffcf_jax/py.typed" in names
    tops = {name.split("/")[0] for name in names}
    assert tops == {"diffcf_jax", f"{wheel.name.split('-py3')[0]}.dist-info"}
    faces = [
        sum(size for name, size in sizes.items() if f"checkpoints/faces_{kind}/" in name)
        for kind in ("ddpm", "diffae")
    ]
    assert all(0 < size <= 16e6 for size in faces)
    assert wheel.stat().st_size - sum(faces) < 20e6


def test_the_wheel_explains_a_square_in_an_empty_folder(wheel, tmp_path):
    home = tmp_path / "env"
    venv.create(home, symlinks=True)
    paths = sysconfig.get_paths("venv", vars={"base": str(home), "platbase": str(home)})
    packages = Path(paths["purelib"])
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    # The dependencies; a .pth file in them, as of an editable install, is not read from there.
    (packages / "dependencies.pth").write_text("\n".join(site.getsitepackages()))
    python = Path(paths["scripts"]) / Path(sys.executable).name
    program = (
        "import sys; from diffcf_jax.main import main; sys.argv[0] = 'diffcf'; sys.exit(main())"
    )
    (tmp_path / "empty").mkdir()

    def diffcf(*arguments):
        done = subprocess.run(
            [python, "-c", program, *arguments], cwd=tmp_path / "empty",
            env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {
                "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".pytest_cache/xla"),
                "JAX_PLATFORMS": "cpu",
            },
            capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    diffcf(
        "explain", "--config", "squares_diffae", "--workdir=out", "--config.data.limit=1",
        "--config.batch_size=1", "--config.method.inversion_steps=10",
        "--config.method.decode_steps=2", "--config.method.iterations=3",
    )  # fmt: skip
    out = tmp_path / "empty" / "out"
    (row,) = (json.loads(line) for line in (out / "results.jsonl").open())
    assert row["name"] == "lower_000.png" and row["iterations"] == 3
    assert abs(row["y_final"] - row["target"]) < abs(row["y_initial"] - row["target"])
    assert (out / "report.html").is_file() and (out / row["cf"]).is_file()
    assert diffcf("--help").startswith("usage: diffcf COMMAND")


def test_the_console_command_is_declared(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith("entry_points.txt"))
        assert archive.read(name).decode().split() == ["[console_scripts]", "diffcf", "=",
                                                      "diffcf_jax.main:main"]  # fmt: skip
