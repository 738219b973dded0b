"""A pickle machine that builds plain containers and numpy arrays, and runs nothing.

A name is only ever a `Placeholder` that carries its text. Calling one gives another one, unless the
reader of a format gave a function of its own under exactly that name. Time and memory are
proportional to the size of the file.

`pickle.Unpickler` with a `find_class` of its own imports nothing either, but it hashes every key (a
deeply nested tuple overflows the stack and ends the process, a tuple that is doubled 40 times takes
days) and reserves as much memory as the number of a memo entry asks for. Neither can be bounded
from outside.
"""

import dataclasses
import math
import pickletools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

VALUES = frozenset(
    ("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT")
    + ("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE")
    + ("BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8")
)
# A call gets at most this many arguments; all of them hold at most this many values per byte.
MOST_ARGUMENTS = 64
MOST_VALUES_PER_BYTE = 4
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}


@dataclasses.dataclass(frozen=True, eq=False)
class Placeholder:
    """What stands for an object that is neither an array nor a plain container.

    Attributes:
        name: "module.name" of its class or function, as the file gives it.
    """

    name: str


class Buildable:
    """A value that a reader makes in two steps: by a call, then from a state."""

    def build(self, state: Any) -> None:
        """Take the state that the pickle stored for this value."""
        raise NotImplementedError


def load(
    stream: Any,
    functions: Mapping[str, Callable[..., Any]],
    persistent: Callable[[Any], Any] | None = None,
) -> Any:
    """Run one pickle from the stream's position to its STOP.

    Args:
        stream: binary file, BytesIO or mmap.
        functions: what may be made of a call: "module.name" -> a function of the pickled arguments.
        persistent: makes a value of a persistent id.

    Returns:
        The pickled object; numbers, strings, bytes, lists, tuples and dicts as they are, sets and
        everything else as `Placeholder`.

    Raises:
        ValueError, IndexError, KeyError, TypeError: the pickle is damaged, or repeats its values so
            often that making arrays of them would take far more memory than the file.
    """
    used = allowed = 0
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}

    def pop_mark() -> list[Any]:
        start = marks.pop()
        items = stack[start:]
        del stack[start:]
        return items

    def charge(values: Any) -> None:
        """Count what the arguments of a call hold, which may be the same values many times."""
        nonlocal used
        if not isinstance(values, tuple | list) or len(values) > MOST_ARGUMENTS:
            raise ValueError("the arguments of a pickled call are no short tuple")
        used += sum(len(v) for v in values if isinstance(v, str | bytes | tuple | list | dict))
        if used > allowed:
            raise ValueError("the pickle repeats its values too often")

    def call(function: Any, args: Any) -> Any:
        name = function.name if isinstance(function, Placeholder) else type(function).__name__
        if name not in functions:
            return Placeholder(name)
        charge(args)
        return functions[name](*args)

    for opcode, arg, position in pickletools.genops(stream):
        name, allowed = opcode.name, MOST_VALUES_PER_BYTE * position + 1000
        if name in VALUES:
            stack.append(arg)
        elif name in CONSTANTS:
            stack.append(CONSTANTS[name])
        elif name == "MARK":
            marks.append(len(stack))
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            memo[arg] = stack[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(memo[arg])
        # Containers
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            count = int(name[-1])
            stack[-count:] = [tuple(stack[-count:])]
        elif name == "TUPLE":
            stack.append(tuple(pop_mark()))
        elif name == "EMPTY_LIST":
            stack.append([])
        elif name == "LIST":
            stack.append(pop_mark())
        elif name in ("APPEND", "APPENDS"):
            items = [stack.pop()] if name == "APPEND" else pop_mark()
            if isinstance(stack[-1], list):
                stack[-1].extend(items)
        elif name == "EMPTY_DICT":
            stack.append({})
        elif name == "DICT":
            items = pop_mark()
            stack.append(plain_dict(zip(items[::2], items[1::2], strict=True)))
        elif name in ("SETITEM", "SETITEMS"):
            items = [stack.pop(-2), stack.pop()] if name == "SETITEM" else pop_mark()
            if isinstance(stack[-1], dict):
                stack[-1].update(plain_dict(zip(items[::2], items[1::2], strict=True)))
        elif name == "EMPTY_SET":
            stack.append(Placeholder("builtins.set"))
        elif name == "ADDITEMS":
            pop_mark()
        elif name == "FROZENSET":
            pop_mark()
            stack.append(Placeholder("builtins.frozenset"))
        # Names, and what Python would call
        elif name == "GLOBAL":
            stack.append(Placeholder(arg.replace(" ", ".", 1)))
        elif name == "STACK_GLOBAL":
            names = stack[-2:]
            if not all(isinstance(part, str) for part in names):
                raise ValueError("a pickled name is no text")
            stack[-2:] = [Placeholder(".".join(names))]
        elif name in ("EXT1", "EXT2", "EXT4"):
            stack.append(Placeholder(f"copyreg.extension_{arg}"))
        elif name in ("REDUCE", "NEWOBJ"):
            function, args = stack[-2:]
            stack[-2:] = [call(function, args)]
        elif name == "NEWOBJ_EX":
            function = stack[-3]
            stack[-3:] = [Placeholder(getattr(function, "name", "object"))]
        elif name == "INST":
            stack.append(call(Placeholder(arg.replace(" ", ".", 1)), pop_mark()))
        elif name == "OBJ":
            function, *args = pop_mark()
            stack.append(call(function, args))
        elif name == "BUILD":
            state = stack.pop()
            if isinstance(stack[-1], Buildable):
                charge(state)
                stack[-1].build(state)
        elif name in ("PERSID", "BINPERSID"):
            identity = arg if name == "PERSID" else stack.pop()
            stack.append(persistent(identity) if persistent else Placeholder("persistent id"))
        # Stack
        elif name == "POP":
            if marks and marks[-1] == len(stack):
                marks.pop()
            else:
                stack.pop()
        elif name == "POP_MARK":
            pop_mark()
        elif name == "DUP":
            stack.append(stack[-1])
        elif name == "STOP":
            return stack.pop()
        elif name not in ("PROTO", "FRAME"):
            raise ValueError(f"pickle opcode {name}")
    raise ValueError("the pickle has no end")


def plain_dict(items: Any = ()) -> dict:
    """Make a dict of pairs; a key that is no text or small number becomes a placeholder.

    Hashing a deeply nested key would overflow the interpreter's stack.
    """
    return {key if _is_plain(key) else Placeholder(type(key).__name__): v for key, v in items}


def _is_plain(key: Any) -> bool:
    if isinstance(key, int):
        return key.bit_length() <= 64
    return isinstance(key, str | bytes | float | None)


class NumpyArray(Buildable):
    """A pickled numpy array."""

    def __init__(self, *_: Any) -> None:
        self.state: Any = None

    def build(self, state: Any) -> None:
        """Take (version, shape, dtype, column-major, bytes)."""
        self.state = state

    def array(self) -> np.ndarray:
        """Make the array; objects are no numbers and are refused."""
        if not isinstance(self.state, tuple) or len(self.state) != 5:
            raise ValueError("its numpy state is incomplete")
        _, shape, dtype, column_major, raw = self.state
        if not isinstance(dtype, NumpyType):
            raise ValueError("its numpy type is missing")
        # Python 2 stored the bytes as a string.
        raw = raw.encode("latin-1") if isinstance(raw, str) else raw
        if not isinstance(raw, bytes | bytearray):
            raise ValueError("its numpy type is not a number")
        check_shape(shape)
        if len(raw) != math.prod(shape) * dtype.numpy().itemsize:
            raise ValueError("it has not as many bytes as its shape needs")
        order = "F" if column_major is True or column_major == 1 else "C"
        return np.frombuffer(raw, dtype.numpy()).reshape(shape, order=order)


def check_shape(shape: Any) -> None:
    """Refuse what is no shape of an array.

    Raises:
        ValueError: it is no tuple of at most 32 natural numbers of 64 bits.
    """
    if (
        not isinstance(shape, tuple)
        or len(shape) > 32
        or any(type(n) is not int or not 0 <= n < 2**63 for n in shape)
    ):
        raise ValueError("its shape is no tuple of natural numbers")


class NumpyType(Buildable):
    """A pickled numpy dtype of numbers."""

    def __init__(self, name: Any, *_: Any) -> None:
        self.name = name
        self.byte_order: Any = "<"

    def build(self, state: Any) -> None:
        """Take (version, byte order, ...)."""
        self.byte_order = state[1] if len(state) > 1 else None

    def numpy(self) -> np.dtype:
        """Return the dtype."""
        if self.name not in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "b1"):
            raise ValueError("its numpy type is not a number")
        if self.byte_order not in ("<", ">", "=", "|"):
            raise ValueError("its numpy type has an unknown byte order")
        return np.dtype(self.name).newbyteorder(self.byte_order)


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    """Stand for _codecs.encode, by which Python 3 stores bytes for Python 2."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise ValueError("bytes in an unknown encoding")
    return text.encode("latin-1")


NUMPY_FUNCTIONS = {
    "collections.OrderedDict": plain_dict,
    "numpy.core.multiarray._reconstruct": NumpyArray,
    "numpy._core.multiarray._reconstruct": NumpyArray,
    "numpy.dtype": NumpyType,
    "_codecs.encode": _encode,
    "__builtin__.bytes": lambda: b"",
}
