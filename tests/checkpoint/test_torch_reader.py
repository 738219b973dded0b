"""Every file format of the originals, damaged ones, and malicious ones."""

import builtins
import io
import os
import pickle
import struct
import time
import tracemalloc
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
    with pytest.raises(UserError, match="No such file"):
        read_state_dict(tmp_path / "absent.pt")
    with pytest.raises(UserError, match="not a regular file"):
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


# What a stranger's file may make of a few bytes.


def doubled(times):
    """A tuple of two of itself, and so on: its text would have 2^times characters."""
    return b")" + b"q\x00h\x00\x86" * times


SIX_TEXT = value(SIX.tobytes().decode("latin-1"))


def array_state(shape, order, raw=SIX_TEXT):
    """A pickled float32 array with any shape and byte order, as opcodes."""
    made = call(name("numpy.core.multiarray", "_reconstruct"), b"N", value((0,)), value(b"b"))
    dtype = call(name("numpy", "dtype"), value("f4"), value(0), value(1))
    dtype += b"(K\x03" + order + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    return made + b"(K\x01" + shape + dtype + b"\x89" + raw + b"tb"


@pytest.mark.parametrize(
    "shape, order, reason",
    [
        (value((None,)), value("<"), "no tuple of natural numbers"),
        (value((2.0, 3.0)), value("<"), "no tuple of natural numbers"),
        (value((-2, -3)), value("<"), "no tuple of natural numbers"),
        (value((0, 10**400)), value("<"), "no tuple of natural numbers"),
        (value([2, 3]), value("<"), "no tuple of natural numbers"),
        (doubled(40), value("<"), "no tuple of natural numbers"),
        (value((2, 3)), value("x"), "unknown byte order"),
        (value((2, 3)), b"N", "unknown byte order"),
        (value((2, 3)), doubled(40), "unknown byte order"),
        (value((2, 4)), value("<"), "not as many bytes"),
    ],
)
def test_array_states_that_are_none(tmp_path, shape, order, reason):
    path = tmp_path / "a.pkl"
    path.write_bytes(dictionary(w=array_state(value((2, 3)), value("<"))))
    np.testing.assert_array_equal(read_state_dict(path)["w"], SIX.reshape(2, 3))
    path.write_bytes(dictionary(w=array_state(shape, order)))
    with pytest.raises(UserError, match=f"the weight 'w' is damaged: .*{reason}"):
        read_state_dict(path)


def storage_of(key):
    return b"(" + value("storage") + name("torch", "FloatStorage") + key + value("cpu") + value(6)


NESTED_IN = {
    "a storage key": dictionary(w=storage_of(doubled(40)) + b"tQ"),
    "a name": b"\x80\x04" + doubled(40) + doubled(40) + b"\x93.",
    "a key": b"\x80\x02}" + doubled(40) + value(1) + b"s.",
    "a type": dictionary(w=call(name("numpy", "dtype"), doubled(40))),
    "an encoding": dictionary(w=call(name("_codecs", "encode"), value("x"), doubled(40))),
    "arguments": dictionary(w=name("_codecs", "encode") + doubled(40) + b"R"),
    "a shape": dictionary(
        w=call(name("torch._utils", "_rebuild_tensor_v2"), storage_of(value("0")) + b"tQ",
               value(0), doubled(40), value((1,)))
    ),
    "the root": b"\x80\x02" + doubled(40) + b".",
}  # fmt: skip


def quickly_refused(path, seconds=2.0, megabytes=64):
    tracemalloc.start()
    start = time.process_time()
    with pytest.raises(UserError) as caught:
        read_state_dict(path)
    assert time.process_time() - start < seconds
    assert tracemalloc.get_traced_memory()[1] < megabytes << 20
    tracemalloc.stop()
    assert len(str(caught.value)) < 500 + len(str(path))
    return str(caught.value)


@pytest.mark.parametrize("place", NESTED_IN)
@pytest.mark.parametrize("zipped", [False, True])
def test_what_is_doubled_many_times_is_never_written_out(tmp_path, place, zipped):
    path = tmp_path / "a.pt"
    if zipped:
        torch_zip(path, NESTED_IN[place], {"0": SIX.tobytes()})
    else:
        path.write_bytes(NESTED_IN[place])
    quickly_refused(path)


def test_values_that_are_repeated_by_calls(tmp_path):
    path = tmp_path / "a.pkl"
    megabyte = value("x" * (1 << 20)) + b"q\x01"
    encode = name("_codecs", "encode") + b"h\x01" + value("latin1") + b"\x86R"
    path.write_bytes(b"\x80\x02](" + megabyte + encode * 1000 + b"e.")
    assert "repeats its values" in quickly_refused(path)
    raw = value("\0" * (1 << 20)) + b"q\xc8"
    state = array_state(value((1 << 18,)), value("<"), b"h\xc8")
    weights = b"".join(value(f"w{i}") + state for i in range(1000))
    path.write_bytes(b"\x80\x02" + raw + b"0}(" + weights + b"u.")
    assert "repeats its values" in quickly_refused(path)
    pairs = b"](" + b"K\x01N\x86" * 10_000 + b"eq\x03"
    ordered = name("collections", "OrderedDict") + b"h\x03\x85R"
    path.write_bytes(b"\x80\x02](" + pairs + ordered * 2000 + b"e.")
    assert "repeats its values" in quickly_refused(path)


def test_weights_that_share_their_values(tmp_path):
    size = 1 << 20
    weights = {f"w{i}": tensor("0", (size,), (1,)) for i in range(100)}
    path = torch_zip(tmp_path / "a.pt", dictionary(**weights), {"0": bytes(4 * size)})
    assert "share the same values" in quickly_refused(path)
    few = dict(list(weights.items())[:2])  # as tied weights do
    path = torch_zip(tmp_path / "b.pt", dictionary(**few), {"0": bytes(4 * size)})
    assert len(read_state_dict(path)) == 2


def test_long_names_are_cut_in_messages(tmp_path):
    long = "n" * 5_000_000
    path = tmp_path / "a.pkl"
    for content in (
        dictionary(**{long: value(1)}),
        dictionary(**{long: array_state(value((None,)), value("<"))}),
        b"\x80\x02c" + long.encode() + b"\n" + long.encode() + b"\n.",
        dictionary(w=storage_of(value(long)) + b"tQ"),
        b"\x80\x02}" + b"\x8b" + struct.pack("<I", 4_000_000) + b"\x01" * 4_000_000 + b"Ns.",
    ):
        path.write_bytes(content)
        quickly_refused(path)
    data = dictionary(
        w=call(name("torch._utils", "_rebuild_tensor_v2"), storage_of(value(long)) + b"tQ")
    )
    quickly_refused(torch_zip(tmp_path / "b.pt", data))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_what_is_no_regular_file_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "a.pt")
    (tmp_path / "b.pt").symlink_to("/dev/zero")
    for path in "a.pt", "b.pt":
        with pytest.raises(UserError, match="not a regular file"):
            read_state_dict(tmp_path / path)
