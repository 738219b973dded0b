"""Read PyTorch checkpoints and pickled numpy arrays without PyTorch, and without running them.

Formats: torch's zip files (also Lightning's `.ckpt`), its older pickle stream (often `.tar`),
plain pickles of numpy arrays as Python 2 wrote them (VGGFace2), and safetensors. Arrays are
read-only views of the memory-mapped file.
"""

import dataclasses
import io
import math
import mmap
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

from diffcf_jax.checkpoint.inert_pickle import (
    NUMPY_FUNCTIONS,
    NumpyArray,
    Placeholder,
    check_shape,
    load,
)
from diffcf_jax.errors import UserError
from diffcf_jax.files import check_regular_file

DTYPES = {
    "DoubleStorage": np.dtype("<f8"),
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
STATE_DICT_NAMES = ("state_dict", "model_state_dict")
# The arrays of a checkpoint together are at most this many times as large as the file: more would
# be views of the same values, which take memory when the network is made of them.
MOST_SIZE = 4


def read_state_dict(path: str | Path) -> dict[str, np.ndarray]:
    """Read the arrays of a checkpoint by name.

    Args:
        path: the file. Its outermost object is the dictionary of arrays, or holds it under
            "state_dict" (Lightning) or "model_state_dict" (STEEX).

    Returns:
        The arrays by their original names, in the file's types (bfloat16 as `ml_dtypes.bfloat16`).

    Raises:
        UserError: the file is missing, damaged, compressed or of another format, has no
            dictionary of arrays, or a value in it is no array.
    """
    path = Path(path)
    root = read_object(path)
    if not isinstance(root, dict):
        raise UserError(f"{path} holds {_describe(root)} instead of a dictionary of weights.")
    for name in STATE_DICT_NAMES:
        if isinstance(root.get(name), dict):
            root = root[name]
            break
    arrays, size = {}, 0
    for name, value in root.items():
        if isinstance(value, Tensor | NumpyArray):
            try:
                value = value.array()
            except (ValueError, OverflowError) as error:
                raise UserError(f"{path}: the weight {shown(name)} is damaged: {error}.") from None
        if not isinstance(value, np.ndarray) or not isinstance(name, str):
            raise UserError(
                f"{path}: {shown(name)} is {_describe(value)}, not an array; "
                f"give a file whose outermost object, or whose {' or '.join(STATE_DICT_NAMES)}, "
                "is a dictionary of arrays."
            )
        size += value.nbytes
        if size > MOST_SIZE * path.stat().st_size:
            raise UserError(f"{path} is damaged: many of its weights share the same values.")
        arrays[name] = value
    if not arrays:
        raise UserError(f"{path} holds no weights.")
    return arrays


def shown(name: Any) -> str:
    """Quote a name of a stranger's file for a message, cut where it is long."""
    if not isinstance(name, str):
        return f"a key {_describe(name)}"
    return repr(name if len(name) <= 100 else f"{name[:100]}...")


def read_object(path: Path) -> Any:
    """Read a checkpoint's outermost object, in which tensors are `Tensor`, not yet arrays.

    Raises:
        UserError: the file is missing, damaged, compressed or of another format.
    """
    check_regular_file(path)
    if path.stat().st_size == 0:
        raise UserError(f"{path} is empty.")
    with path.open("rb") as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    try:
        if path.suffix == ".safetensors":
            return safetensors.numpy.load_file(path)
        if data[:2] == b"\x1f\x8b" or data[257:262] == b"ustar":
            raise UserError(f"{path} is an archive; unpack it and give the checkpoint inside.")
        if data[:4] == b"PK\x03\x04":
            return _read_zip(path, data)
        return _read_pickles(data)
    except UserError:
        raise
    except zipfile.BadZipFile:
        raise UserError(f"{path} is a truncated or damaged zip file; fetch it again.") from None
    except (Exception, safetensors.SafetensorError) as error:
        # Whatever goes wrong inside is the file's fault: nothing but its bytes is interpreted.
        raise UserError(
            f"{path} is truncated, damaged or no PyTorch checkpoint: {str(error)[:200]}."
        ) from None


@dataclasses.dataclass
class Storage:
    """The flat buffer that tensors are views of."""

    key: str
    dtype: np.dtype
    numel: int
    data: np.ndarray | None = None  # [numel], once the bytes are found

    def fill(self, data: Any, offset: int) -> None:
        """Take the buffer from `data`, starting at byte `offset`."""
        if offset + self.numel * self.dtype.itemsize > len(data):
            raise ValueError(f"storage {shown(self.key)} ends beyond the end of the file")
        if self.numel:
            self.data = np.frombuffer(data, self.dtype, self.numel, offset)
        else:
            self.data = np.empty(0, self.dtype)


@dataclasses.dataclass(frozen=True, eq=False)
class Tensor:
    """A strided view of a storage, in elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def array(self) -> np.ndarray:
        """Make the view, which must lie inside the storage and not repeat it."""
        for numbers in (self.offset,), self.shape, self.strides:
            check_shape(numbers)
        if len(self.shape) != len(self.strides):
            raise ValueError("its shape and strides do not fit together")
        data = self.storage.data
        if data is None:
            raise ValueError("its storage is missing")
        if math.prod(self.shape) == 0:
            return np.empty(self.shape, data.dtype)
        last = self.offset + sum(
            (n - 1) * stride for n, stride in zip(self.shape, self.strides, strict=True)
        )
        if last >= data.size or math.prod(self.shape) > data.size:
            raise ValueError("it is larger than its storage")
        strides = [stride * data.itemsize for stride in self.strides]
        return np.lib.stride_tricks.as_strided(
            data[self.offset :], self.shape, strides, writeable=False
        )


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> Any:
    """Stand for torch._utils._rebuild_tensor_v2 and its predecessor."""
    if not isinstance(storage, Storage):
        return storage
    return Tensor(storage, offset, shape, strides)


FUNCTIONS = {
    **NUMPY_FUNCTIONS,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_tensor": _rebuild_tensor,
    "torch._utils._rebuild_parameter": lambda tensor, *_: tensor,
}


class _Storages(dict[str, Storage]):
    """The storages that a pickle refers to, by key."""

    def persistent(self, identity: Any) -> Storage | Placeholder:
        """Make the storage of ("storage", type, key, device, numel[, view])."""
        match identity:
            case ("storage", Placeholder(name=name), key, _, numel) | (
                "storage",
                Placeholder(name=name),
                key,
                _,
                numel,
                None,
            ) if name.removeprefix("torch.") in DTYPES:
                dtype = DTYPES[name.removeprefix("torch.")]
            case _:
                return Placeholder("a storage of another type")
        if type(numel) is not int or numel < 0 or not isinstance(key, str):
            raise ValueError("a storage has no text as its key or no natural number as its size")
        storage = self.setdefault(key, Storage(key, dtype, numel))
        if (storage.dtype, storage.numel) != (dtype, numel):
            raise ValueError(f"storage {shown(key)} has two types")
        return storage


def _read_zip(path: Path, data: mmap.mmap) -> Any:
    """Read torch's zip format: NAME/data.pkl and one uncompressed member per storage."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        for member in members:
            if member.compress_type != zipfile.ZIP_STORED:
                raise ValueError(
                    f"its member {shown(member.filename)} is compressed, as in no state dict"
                )
        # Uncompressed members that do not overlap can never be larger than the file.
        if sum(member.file_size for member in members) > len(data):
            raise ValueError("its members overlap")
        pickles = [m for m in members if m.filename.split("/")[1:] == ["data.pkl"]]
        if len(pickles) != 1:
            raise ValueError("it has no data.pkl")
        prefix = pickles[0].filename.removesuffix("data.pkl")
        if f"{prefix}byteorder" in archive.namelist() and (
            archive.read(f"{prefix}byteorder") != b"little"
        ):
            raise ValueError("it was written on a big-endian machine")
        storages = _Storages()
        root = load(io.BytesIO(archive.read(pickles[0])), FUNCTIONS, storages.persistent)
        for key, storage in storages.items():
            member = archive.getinfo(f"{prefix}data/{key}")
            if member.file_size != storage.numel * storage.dtype.itemsize:
                raise ValueError(f"storage {shown(key)} has not the size that its tensors name")
            # The local header repeats the name and may have another extra field.
            name_size, extra_size = struct.unpack_from("<HH", data, member.header_offset + 26)
            storage.fill(data, member.header_offset + 30 + name_size + extra_size)
            if zlib.crc32(storage.data.view(np.uint8)) != member.CRC:
                raise zipfile.BadZipFile("a storage is damaged")
    return root


def _read_pickles(data: mmap.mmap) -> Any:
    """Read torch's older format (five pickles, then the storages), or a single plain pickle."""
    first = load(data, FUNCTIONS)
    if first != LEGACY_MAGIC:
        return first
    load(data, {})  # the protocol's version
    system = load(data, {})
    if isinstance(system, dict) and not system.get("little_endian", True):
        raise ValueError("it was written on a big-endian machine")
    storages = _Storages()
    root = load(data, FUNCTIONS, storages.persistent)
    keys = load(data, {})
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise ValueError("it has no list of storages")
    for key in keys:
        if key not in storages:
            raise ValueError(f"its storage {shown(key)} is of a type that cannot be read")
        storage = storages[key]
        (numel,) = struct.unpack("<q", data.read(8))
        if numel != storage.numel:
            raise ValueError(f"storage {shown(key)} has not the size that its tensors name")
        storage.fill(data, data.tell())
        data.seek(numel * storage.dtype.itemsize, io.SEEK_CUR)
    return root


def _describe(value: Any) -> str:
    """Say what a value is, for an error message."""
    if isinstance(value, Placeholder):
        return f"an object of {value.name[:80]!r}"
    return f"of type {type(value).__name__}"
