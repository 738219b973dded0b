"""Every file format of the originals, damaged ones, and malicious ones."""

import builtins
import io
import os
import pickle
import struct
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from diffcf_jax.checkpoint.torch_reader import LEGACY_MAGIC, read_state_dict
from diffcf_jax.errors import UserError

GOLDEN = Path(__file__).parents[1] / "golden" / "ckpt_formats"
FILES = {
    "resnet": "resnet.ckpt",
    "legacy_densenet": "legacy_densenet.tar",
    "fva": "fva.pkl",
    "odd": "odd.pt",
}


@pytest.mark.parametrize("name", FILES)
def test_reads_the_originals_formats(name):
    arrays = read_state_dict(GOLDEN / FILES[name])
    expected = {
        key.partition("|")[2]: value
        for key, value in np.load(GOLDEN / "io.npz").items()
        if key.startswith(f"{name}|")
    }
    assert arrays.keys() == expected.keys()
    for key, array in arrays.items():
        if array.dtype == ml_dtypes.bfloat16:
            array = array.astype(np.float32)
        if array.size >= 2000:  # only these three numbers of it are stored
            flat = array.astype(np.float64).ravel()
            array = np.array([flat.sum(), flat[0], flat[-1]])
            np.testing.assert_allclose(array, expected[key], rtol=1e-12, atol=1e-9)
        else:
            assert array.dtype == expected[key].dtype
            np.testing.assert_array_equal(array, expected[key], strict=True)


# Hand-made files: the pickles are assembled from opcodes, because no PyTorch writes them here.


def value(x):
    return pickle.dumps(x, 2)[2:-1]  # without PROTO and STOP


def name(module, attribute):
    return f"c{module}\n{attribute}\n".encode()


def call(function, *args):
    return function + b"(" + b"".join(args) + b"tR"


def tensor(key, shape, strides, offset=0, numel=None, dtype="FloatStorage"):
    numel = int(np.prod(shape)) if numel is None else numel
    storage = (
        b"(" + value("storage") + name("torch", dtype) + value(key) + value("cpu") + value(numel)
    ) + b"tQ"
    rebuild = name("torch._utils", "_rebuild_tensor_v2")
    return call(rebuild, storage, value(offset), value(shape), value(strides), value(False), b"N")


def dictionary(**entries):
    items = b"".join(value(key) + entry for key, entry in entries.items())
    return b"\x80\x02}(" + items + b"u."


def torch_zip(path, data, storages=(), compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", data)
        for key, content in dict(storages).items():
            archive.writestr(f"archive/data/{key}", content)
    return path


SIX = np.arange(6, dtype=np.float32)


def good_zip(path):
    return torch_zip(path, dictionary(w=tensor("0", (2, 3), (3, 1))), {"0": SIX.tobytes()})


@pytest.fixture
def no_calls(monkeypatch):
    """Fail when anything that a pickle could name is called."""

    def refuse(*args, **kwargs):
        raise AssertionError("a pickled call was made")

    monkeypatch.setattr(os, "system", refuse)
    monkeypatch.setattr(builtins, "eval", refuse)
    monkeypatch.setattr(pickle, "loads", refuse)
    monkeypatch.setattr(pickle, "Unpickler", refuse)


def test_reads_views(tmp_path):
    data = dictionary(
        rows=tensor("0", (2, 3), (3, 1)),
        columns=tensor("0", (3, 2), (1, 3)),
        slice=tensor("0", (2,), (2,), offset=1, numel=6),
        scalar=tensor("0", (), (), offset=5, numel=6),
        empty=tensor("1", (0, 3), (3, 1)),
    )
    arrays = read_state_dict(torch_zip(tmp_path / "a.pt", data, {"0": SIX.tobytes(), "1": b""}))
    np.testing.assert_array_equal(arrays["rows"], SIX.reshape(2, 3))
    np.testing.assert_array_equal(arrays["columns"], SIX.reshape(2, 3).T)
    np.testing.assert_array_equal(arrays["slice"], [1, 3])
    assert arrays["scalar"] == 5 and arrays["scalar"].shape == ()
    assert arrays["empty"].shape == (0, 3)


EVIL = {
    "os.system": call(name("os", "system"), value("touch evil")),
    "builtins.eval": call(name("builtins", "eval"), value("1/0")),
    "python 2": call(name("__builtin__", "eval"), value("1/0")),
    "chain": call(
        call(name("builtins", "getattr"), name("os", "path"), value("join")),
        call(name("builtins", "__import__"), value("os")),
    ),
    "instance": b"(" + value("touch evil") + b"ios\nsystem\n",
    "object": b"(" + name("os", "system") + value("touch evil") + b"o",
    "stack global": value("os") + value("system") + b"\x93(" + value("touch evil") + b"tR",
    "new": name("subprocess", "Popen") + b"(" + value("touch evil") + b"t\x81",
    "state": call(name("builtins", "object")) + value({"__class__": "x"}) + b"b",
    "extension": b"\x82\x01" + b")R",
}


@pytest.mark.parametrize("kind", EVIL)
def test_a_pickled_call_is_never_made(tmp_path, no_calls, kind):
    weight = tensor("0", (2, 3), (3, 1))
    as_weight = torch_zip(tmp_path / "a.pt", dictionary(w=EVIL[kind]))
    with pytest.raises(UserError, match="'w' is an object of"):
        read_state_dict(as_weight)
    as_root = torch_zip(tmp_path / "b.pt", b"\x80\x02" + EVIL[kind] + b".")
    with pytest.raises(UserError, match="instead of a dictionary"):
        read_state_dict(as_root)
    # Beside the weights it is inert.
    state = b"}(" + value("w") + weight + b"u"
    beside = dictionary(hyper_parameters=EVIL[kind], state_dict=state)
    arrays = read_state_dict(torch_zip(tmp_path / "c.pt", beside, {"0": SIX.tobytes()}))
    np.testing.assert_array_equal(arrays["w"], SIX.reshape(2, 3))
    plain = tmp_path / "d.pkl"
    plain.write_bytes(dictionary(w=EVIL[kind]))
    with pytest.raises(UserError, match="'w' is an object of"):
        read_state_dict(plain)


def test_python_never_unpickles(tmp_path, no_calls):
    arrays = read_state_dict(good_zip(tmp_path / "a.pt"))
    np.testing.assert_array_equal(arrays["w"], SIX.reshape(2, 3))
    for path in FILES.values():
        read_state_dict(GOLDEN / path)


def test_a_zip_bomb_is_not_inflated(tmp_path):
    bomb = torch_zip(
        tmp_path / "bomb.pt",
        dictionary(w=tensor("0", (1 << 24,), (1,))),
        {"0": bytes(1 << 26)},
        zipfile.ZIP_DEFLATED,
    )
    assert bomb.stat().st_size < 1 << 20
    with pytest.raises(UserError, match="compressed"):
        read_state_dict(bomb)


def test_overlapping_members_are_refused(tmp_path):
    path = tmp_path / "overlap.pt"
    torch_zip(path, dictionary(w=tensor("0", (256,), (1,))), {"0": bytes(1024), "1": bytes(1024)})
    content = bytearray(path.read_bytes())
    # Let the second central entry's declared size, and its twin's, exceed the file.
    start = content.index(b"PK\x01\x02")
    start = content.index(b"PK\x01\x02", start + 4)
    struct.pack_into("<LL", content, start + 20, 1 << 30, 1 << 30)
    path.write_bytes(content)
    with pytest.raises(UserError, match="overlap"):
        read_state_dict(path)


@pytest.mark.parametrize(
    "weight",
    [
        tensor("0", (7,), (1,), numel=6),  # beyond the end
        tensor("0", (2,), (6,), numel=6),
        tensor("0", (2,), (1,), offset=5, numel=6),
        tensor("0", (1 << 40, 1 << 20), (0, 0), numel=6),  # a repeated element
        tensor("0", (2, 3), (-3, -1), offset=5, numel=6),
        tensor("0", (2, 3), (3,), numel=6),
        tensor("0", (1,) * 60, (1,) * 60, numel=6),
        tensor("0", (1.5,), (1,), numel=6),
    ],
)
def test_a_tensor_must_lie_in_its_storage(tmp_path, weight):
    path = torch_zip(tmp_path / "a.pt", dictionary(w=weight), {"0": SIX.tobytes()})
    with pytest.raises(UserError, match="'w' is damaged"):
        read_state_dict(path)


def test_unknown_storages_are_refused_by_the_weights_name(tmp_path):
    data = dictionary(q=tensor("0", (6,), (1,), dtype="QInt8Storage"))
    with pytest.raises(UserError, match="'q' is an object of"):
        read_state_dict(torch_zip(tmp_path / "a.pt", data, {"0": bytes(6)}))


def test_damaged_files_are_one_sentence(tmp_path):
    good = good_zip(tmp_path / "good.pt").read_bytes()
    flipped = bytearray(good)
    flipped[good.index(SIX.tobytes()) + 5] ^= 1
    legacy = (GOLDEN / FILES["legacy_densenet"]).read_bytes()
    plain = (GOLDEN / FILES["fva"]).read_bytes()
    cases = {
        "empty": b"",
        "half a zip": good[: len(good) // 2],
        "a flipped bit": bytes(flipped),
        "half a legacy file": legacy[: len(legacy) // 2],
        "the head of a legacy file": legacy[:1000],
        "half a pickle": plain[: len(plain) // 2],
        "a web page": b"<html>404</html>",
        "noise": np.random.default_rng(0).bytes(5000),
        "a gzip archive": b"\x1f\x8b" + bytes(100),
        "a zip without weights": _zip_of({"readme.txt": b"hello"}),
        "a wrong size": _zip_of(
            {"a/data.pkl": dictionary(w=tensor("0", (6,), (1,))), "a/data/0": bytes(20)}
        ),
        "a missing storage": _zip_of({"a/data.pkl": dictionary(w=tensor("0", (6,), (1,)))}),
        "big-endian": _zip_of({"a/data.pkl": dictionary(), "a/byteorder": b"big"}),
        "no weights": _zip_of({"a/data.pkl": b"\x80\x02}."}),
        "a list": _zip_of({"a/data.pkl": b"\x80\x02]."}),
        "a nested key": b"\x80\x02}" + b")" + b"\x85" * 200_000 + b"K\x01s.",
        "a stack underflow": b"\x80\x02R.",
        "a huge string": b"\x80\x04\x8d" + struct.pack("<Q", 1 << 60) + b"x.",
    }
    for case, content in cases.items():
        path = tmp_path / "bad.pt"
        path.write_bytes(content)
        with pytest.raises(UserError) as caught:
            read_state_dict(path)
        message = str(caught.value)
        assert "bad.pt" in message and "\n" not in message and len(message) < 400, case
    with pytest.raises(UserError, match="does not exist"):
        read_state_dict(tmp_path / "absent.pt")
    with pytest.raises(UserError, match="not a file"):
        read_state_dict(tmp_path)


def _zip_of(members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for member, content in members.items():
            archive.writestr(member, content)
    return buffer.getvalue()


def test_legacy_file_by_hand(tmp_path):
    path = tmp_path / "legacy.pt"
    parts = [LEGACY_MAGIC, 1001, {"protocol_version": 1001, "little_endian": True}]
    content = b"".join(pickle.dumps(part, 2) for part in parts)
    content += dictionary(w=tensor("7", (3, 2), (1, 3))) + pickle.dumps(["7"], 2)
    path.write_bytes(content + struct.pack("<q", 6) + SIX.tobytes())
    np.testing.assert_array_equal(read_state_dict(path)["w"], SIX.reshape(2, 3).T)
    path.write_bytes(content + struct.pack("<q", 6) + SIX.tobytes()[:-1])
    with pytest.raises(UserError, match="beyond the end"):
        read_state_dict(path)


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_pickled_numpy_arrays(tmp_path, protocol):
    arrays = {
        "c": SIX.reshape(2, 3),
        "fortran": np.asfortranarray(SIX.reshape(2, 3)),
        "big_endian": SIX.astype(">f8"),
        "counter": np.array(3),
        "empty": np.zeros((0, 2), np.float32),
    }
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps(arrays, protocol))
    for key, array in read_state_dict(path).items():
        np.testing.assert_array_equal(array, arrays[key], strict=True)
    path.write_bytes(pickle.dumps({"objects": np.array([os.system], object)}, protocol))
    with pytest.raises(UserError, match="'objects' is damaged: its numpy type"):
        read_state_dict(path)
