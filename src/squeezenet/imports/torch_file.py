"""Reader of `torch.save` files that needs no torch and runs no code.

A file is a zip with `data.pkl` and one file per storage, or, from before 2020, several pickles and the storages behind
them. The pickle is interpreted here, opcode by opcode: it can build numbers, texts, lists, dictionaries and references
to tensors. Everything else that it names, functions and classes of anybody, becomes an `Inert` record: nothing is
imported, nothing is called. A tensor's values are read when they are asked for, once its claims fit its storage.
"""

from __future__ import annotations

import io
import math
import pickletools
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import WeightsError
from ..spec import MAX_WEIGHTS
from ..text import printable

__all__ = ["Inert", "TensorReference", "read_torch"]

_MAX_OPCODES = 2_000_000
_MAX_PICKLE_BYTES = 64 << 20
_MAX_UNPACKED_BYTES = 8 * MAX_WEIGHTS + (16 << 20)
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_DTYPES = {
    "Half": "<f2", "BFloat16": "bf16", "Float": "<f4", "Double": "<f8", "Long": "<i8", "Int": "<i4", "Short": "<i2",
    "Char": "<i1", "Byte": "<u1", "Bool": "<u1",
}  # fmt: skip
_NEW_DTYPES = {"float16": "<f2", "bfloat16": "bf16", "float32": "<f4", "float64": "<f8"}  # of untyped storages
_FLOATS = ("<f2", "bf16", "<f4", "<f8")
_REBUILT = ("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor_v3")
_PARAMETERS = ("torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state")
_MARK = object()
_ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, struct.error, NotImplementedError, RuntimeError, EOFError)


@dataclass
class Inert:
    """A placeholder for any other object or function in a pickle: its name and its arguments."""

    name: str
    arguments: tuple[Any, ...] = ()
    state: Any = None


@dataclass(frozen=True)
class _Storage:
    key: str
    dtype: str
    count: int


@dataclass(frozen=True)
class TensorReference:
    """A tensor whose values have not been read."""

    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], NDArray[np.float32]]
    """Function that reads the values as float32; raises ValueError if shape and file do not match."""


def read_torch(path: Path) -> Any:
    """Read a file of `torch.save` as plain data with `TensorReference` and `Inert` in it.

    Raises:
        WeightsError: If it is not such a file, or asks for more memory or time than a SqueezeNet needs.
    """
    try:
        return _read_zip(path) if zipfile.is_zipfile(path) else _read_legacy(path)
    except WeightsError as error:
        raise error.at(path) from None
    except (ValueError, EOFError, KeyError, IndexError, TypeError, AttributeError, OverflowError, OSError) as error:
        reason = printable(str(error).splitlines()[0] if str(error) else "")[:200]
        raise _unreadable(f"{type(error).__name__}: {reason}").at(path) from None
    except _ZIP_ERRORS as error:
        raise _unreadable(printable(str(error))[:200]).at(path) from None


def _unreadable(reason: str) -> WeightsError:
    return WeightsError(f"expected a state dict saved by torch.save, got a file that cannot be read as one ({reason})")


def _read_zip(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        unpacked_bytes = sum(entry.file_size for entry in entries.values())
        if unpacked_bytes > _MAX_UNPACKED_BYTES:
            raise WeightsError(f"expected at most {_MAX_UNPACKED_BYTES} bytes unpacked, got {unpacked_bytes}")
        # The other methods take memory by their own headers.
        if any(entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for entry in entries.values()):
            raise _unreadable("a zip with another compression than torch's")
        pickles = [name for name in entries if name == "data.pkl" or name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise _unreadable(f"expected one data.pkl in the zip, got {len(pickles)}")
        prefix = pickles[0].removesuffix("data.pkl")
        if f"{prefix}byteorder" in entries and archive.read(f"{prefix}byteorder") != b"little":
            raise _unreadable("it was written on a big-endian machine")
        if entries[pickles[0]].file_size > _MAX_PICKLE_BYTES:
            raise _unreadable(f"a pickle of {entries[pickles[0]].file_size} bytes")
        if any(name.startswith(f"{prefix}code/") for name in entries):
            raise WeightsError("expected a state dict, got a TorchScript program: save `model.state_dict()` instead")
        data = archive.read(pickles[0])

    def storage(key: str, size_bytes: int) -> bytes:
        name = f"{prefix}data/{key}"
        if name not in entries or entries[name].file_size < size_bytes:
            raise ValueError(f"expected {size_bytes} bytes in {name}, got fewer")
        try:
            with zipfile.ZipFile(path) as archive:
                return archive.read(name)
        except _ZIP_ERRORS as error:
            raise ValueError(f"cannot be unpacked ({error})") from None

    return _Machine(io.BytesIO(data), storage).run()


def _read_legacy(path: Path) -> Any:
    data = path.read_bytes()  # the caller has checked its size
    if data[257:262] == b"ustar":
        raise _unreadable("a tar file, as torch wrote before 2017: load and save it with a newer torch")
    stream = io.BytesIO(data)

    def later(key: str, size_bytes: int) -> bytes:
        if key not in places:
            raise ValueError(f"expected the storage {key!r} in the file")
        offset, available = places[key]
        if size_bytes > available:
            raise ValueError(f"expected {size_bytes} bytes for a storage, got {available}")
        return data[offset : offset + size_bytes]

    places = dict[str, tuple[int, int]]()
    first = _Machine(stream, later).run()
    if first != _LEGACY_MAGIC:
        if isinstance(first, (Mapping, list, Inert)):
            raise _unreadable("a pickle, but not of torch.save")
        raise _unreadable("another kind of pickle")
    _Machine(stream, later).run()  # the protocol
    _Machine(stream, later).run()  # sizes of the writer's integers
    machine = _Machine(stream, later)
    content = machine.run()
    keys = _Machine(stream, later).run()
    offset = stream.tell()
    for key in keys:
        if not isinstance(key, str) or key not in machine.storages:
            raise ValueError("expected the storages that tensors use, got others")
        size_bytes = machine.storages[key].count * _item_bytes(machine.storages[key].dtype)
        if not 0 <= size_bytes <= len(data) - offset - 8:
            raise EOFError(f"expected {size_bytes} bytes of a storage, got {max(len(data) - offset - 8, 0)}")
        places[key] = (offset + 8, size_bytes)  # behind the number of its elements
        offset += 8 + size_bytes
    return content


class _Machine:
    """The stack machine of pickle, without imports and calls."""

    def __init__(self, stream: io.BytesIO, storage: Callable[[str, int], bytes]) -> None:
        self._stream, self._storage = stream, storage
        self._stack, self._memo = list[Any](), dict[int, Any]()
        self.storages = dict[str, _Storage]()

    def run(self) -> Any:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(self._stream)):
            if count > _MAX_OPCODES:
                raise ValueError(f"more than {_MAX_OPCODES} opcodes")
            self._step(opcode.name, argument)
        return self._stack.pop()

    def _step(self, name: str, argument: Any) -> None:
        if name in _CONSTANTS:
            self._stack.append(_CONSTANTS[name]())
        elif name in _LITERALS:
            self._stack.append(argument)
        elif name in ("BINPUT", "LONG_BINPUT", "PUT", "MEMOIZE"):
            self._memo[len(self._memo) if name == "MEMOIZE" else int(argument)] = self._stack[-1]
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            self._stack.append(self._memo[int(argument)])
        elif name not in ("PROTO", "FRAME", "STOP"):
            self._build(name, argument)

    def _build(self, name: str, argument: Any) -> None:
        stack = self._stack
        match name:
            case "TUPLE" | "LIST" | "DICT" | "FROZENSET":
                items = self._marked()
                stack.append(_dictionary(items) if name == "DICT" else list(items) if name == "LIST" else tuple(items))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                count = int(name[-1])
                items = stack[-count:]
                if len(items) < count:
                    raise IndexError("an empty stack")
                stack[-count:] = [tuple(items)]
            case "APPEND":
                _extend(stack[-2], [stack.pop()])
            case "APPENDS" | "ADDITEMS":
                items = self._marked()
                _extend(stack[-1], items)
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                _update(stack[-1], [key, value])
            case "SETITEMS":
                items = self._marked()
                _update(stack[-1], items)
            case "POP":
                stack.pop()
            case "POP_MARK":
                self._marked()
            case "DUP":
                stack.append(stack[-1])
            case _:
                self._object(name, argument)

    def _object(self, name: str, argument: Any) -> None:
        stack = self._stack
        match name:
            case "GLOBAL":
                stack.append(Inert(".".join(argument.split(" ", 1))))
            case "STACK_GLOBAL":
                attribute, module = stack.pop(), stack.pop()
                if not isinstance(attribute, str) or not isinstance(module, str):
                    raise TypeError("a name that is not text")
                stack.append(Inert(f"{module}.{attribute}"[:500]))
            case "REDUCE" | "NEWOBJ" | "NEWOBJ_EX":
                if name == "NEWOBJ_EX":
                    stack.pop()  # arguments by name
                arguments, function = stack.pop(), stack.pop()
                stack.append(self._made(function, arguments))
            case "INST" | "OBJ":
                items = self._marked()
                function = Inert(".".join(argument.split(" ", 1))) if name == "INST" else items.pop(0)
                stack.append(self._made(function, tuple(items)))
            case "BUILD":
                state = stack.pop()
                if isinstance(stack[-1], Inert):
                    stack[-1].state = state
            case "BINPERSID":
                stack.append(self._persistent(stack.pop()))
            case _:
                raise ValueError(f"the pickle opcode {name}")

    def _marked(self) -> list[Any]:
        for place in range(len(self._stack) - 1, -1, -1):
            if self._stack[place] is _MARK:
                items = self._stack[place + 1 :]
                del self._stack[place:]
                return items
        raise IndexError("no mark")

    def _made(self, function: Any, arguments: Any) -> Any:
        """Result of a call: a tensor or a dictionary for a few known functions, else an `Inert` record."""
        if not isinstance(function, Inert) or not isinstance(arguments, tuple):
            raise TypeError("a call of something that is not a function")
        if function.name == "collections.OrderedDict":
            return _dictionary([part for pair in arguments[0] for part in pair]) if arguments else {}
        if function.name == "torch.Size":
            return arguments[0]
        if function.name in _PARAMETERS:
            return arguments[0]
        if function.name in _REBUILT and isinstance(arguments[0], _Storage):
            return self._tensor(*arguments)
        return Inert(function.name, arguments)

    def _persistent(self, key: Any) -> Any:
        if isinstance(key, tuple) and len(key) >= 5 and key[0] == "storage" and isinstance(key[1], Inert):
            kind = key[1].name.rpartition(".")[2].removesuffix("Storage")
            dtype = "<u1" if kind == "Untyped" else _DTYPES.get(kind)
            if not isinstance(key[2], str):
                raise TypeError("a storage whose name is not text")
            if dtype is None or type(key[4]) is not int or key[4] < 0:
                return Inert(key[1].name)  # complex, quantised: no weights of a SqueezeNet
            return self.storages.setdefault(key[2], _Storage(key[2], dtype, key[4]))
        return Inert("a persistent object")

    def _tensor(self, storage: _Storage, offset: Any, shape: Any, stride: Any, *rest: Any) -> Any:
        """A reference; its claims are checked when it is read."""
        dtype = storage.dtype
        if len(rest) > 2 and isinstance(rest[2], Inert):  # `_rebuild_tensor_v3` names the type itself
            dtype = _NEW_DTYPES.get(rest[2].name.removeprefix("torch."), dtype)
        values = (offset, *shape, *stride)
        if (
            len(shape) != len(stride)
            or len(shape) > 8
            or not all(type(value) is int and value >= 0 for value in values)
        ):
            raise ValueError("a tensor of impossible shape")

        def read() -> NDArray[np.float32]:
            if dtype not in _FLOATS:
                raise ValueError(f"expected floats, got another type of number ({dtype})")
            count, item_bytes = math.prod(shape), _item_bytes(dtype)
            if count > MAX_WEIGHTS:
                raise ValueError(f"expected at most {MAX_WEIGHTS} values, got {count}")
            last = offset + sum((size - 1) * step for size, step in zip(shape, stride, strict=True)) if count else -1
            if last >= storage.count * _item_bytes(storage.dtype) // item_bytes:
                raise ValueError("expected the values of a tensor, got a storage that is too small")
            data = self._storage(storage.key, storage.count * _item_bytes(storage.dtype))
            flat = np.frombuffer(data, "<u2" if dtype == "bf16" else dtype)
            steps = tuple(step * item_bytes for step in stride)
            found = np.lib.stride_tricks.as_strided(flat[offset:], shape, steps, writeable=False)
            if dtype == "bf16":
                return (found.astype(np.uint32) << 16).view(np.float32)
            return found.astype(np.float32)

        return TensorReference(tuple(shape), dtype, read)


def _item_bytes(dtype: str) -> int:
    return 2 if dtype == "bf16" else np.dtype(dtype).itemsize


def _extend(target: Any, items: list[Any]) -> None:
    if isinstance(target, list):
        target.extend(items)


def _update(target: Any, items: list[Any]) -> None:
    if isinstance(target, dict):
        target.update(_dictionary(items))
    elif isinstance(target, Inert):
        target.state = (target.state if isinstance(target.state, dict) else {}) | _dictionary(items)


def _dictionary(items: list[Any]) -> dict[Any, Any]:
    """Build a dictionary with plain keys only: hashing nested tuples can take almost unlimited time."""
    pairs = zip(items[::2], items[1::2], strict=True)
    return {key: value for key, value in pairs if isinstance(key, (str, int, float, bytes, type(None)))}


_CONSTANTS: dict[str, Callable[[], Any]] = {
    "MARK": lambda: _MARK, "NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple, "EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_SET": list,
}  # fmt: skip
_LITERALS = frozenset({
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING",
    "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES",
    "BINBYTES8", "BYTEARRAY8",
})  # fmt: skip
