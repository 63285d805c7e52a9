"""Weight streams in C: the integers of `decode_convs` and the bytes of `encode_convs`, a hundred times faster."""

from __future__ import annotations

import contextlib
import ctypes
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ..native_library import ConvShape, check_status, load_library, why_not_loaded
from ..network import ConvParams
from ..process import usable_cores
from ..spec import Op
from .weights import check_encodable, decode_convs, encode_convs, encode_next, part_starts

__all__ = ["decode_convs_fast", "encode_convs_fast", "encode_next_fast", "encode_weights_alone"]

_T = TypeVar("_T")
_R = TypeVar("_R")


def decode_convs_fast(
    ops: Sequence[Op], streams: Sequence[bytes], fresh: Collection[int] = frozenset()
) -> dict[str, ConvParams]:
    """Decode the convolutions of a network, its parts in threads; time and memory are bounded by the shapes of `ops`.

    Arguments are as for `weights.encode_convs`.

    Raises:
        Truncated: If a stream ends early.
        BadTable: If one holds values no encoder writes, or goes on after the last weight.
    """
    library = load_library()
    if library is None:
        return decode_convs(ops, streams, fresh)
    starts = part_starts(len(ops), fresh)
    parts = [slice(start, end) for start, end in zip(starts, [*starts[1:], len(ops)], strict=True)]

    def decode(part: slice) -> list[ConvParams]:
        coder = _Coder(library, ops[part])
        return [coder.decode(op, stream) for op, stream in zip(ops[part], streams[part], strict=True)]

    convs = [params for part in _by_two_threads(decode, parts) for params in part]
    return {op.name: params for op, params in zip(ops, convs, strict=True)}


def _by_two_threads(function: Callable[[_T], _R], items: Sequence[_T]) -> list[_R]:
    """Call a function once for each item, where there are cores by two threads; raises the error of the first item."""
    left = iter(list(enumerate(items)))
    results: dict[int, _R] = {}
    errors: dict[int, Exception] = {}

    def work() -> None:
        for index, item in left:
            try:
                results[index] = function(item)
            except Exception as error:  # raised again below, in the thread that asked
                errors[index] = error

    second = threading.Thread(target=work)
    if len(items) > 1 and usable_cores() > 1:
        with contextlib.suppress(RuntimeError):  # the system has no thread left, or the interpreter is ending
            second.start()
    work()
    if second.ident is not None:
        second.join()
    if errors:
        raise errors[min(errors)]
    return [results[index] for index in range(len(items))]


def encode_convs_fast(
    ops: Sequence[Op], convs: Mapping[str, ConvParams], fresh: Collection[int] = frozenset()
) -> list[bytes]:
    """Code the convolutions of a network, in order; see `weights.encode_convs`."""
    library = load_library()
    if library is None:
        return encode_convs(ops, convs, fresh)
    coder, streams = _Coder(library, ops), []
    for index, op in enumerate(ops):
        coder = _Coder(library, ops) if index in fresh else coder
        streams.append(coder.encode(op, convs[op.name]))
    return streams


def encode_weights_alone(ops: Sequence[Op], convs: Mapping[str, ConvParams]) -> list[bytes]:
    """Code the weights of a network for exported C, which decodes them row by row: no row refers to more than the one
    before it.

    Raises:
        ImportError: If the native engine was not built.
    """
    library = load_library()
    if library is None:
        raise ImportError(why_not_loaded())
    coder = _Coder(library, ops)
    return [coder.encode(op, convs[op.name], weights_alone=True) for op in ops]


def encode_next_fast(
    ops: Sequence[Op], streams: Sequence[bytes], op: Op, params: ConvParams, fresh: Collection[int] = frozenset()
) -> bytes:
    """Code one more convolution after those of some streams; see `weights.encode_next`."""
    library = load_library()
    if library is None:
        return encode_next(ops, streams, op, params, fresh)
    coder, first = _Coder(library, [*ops, op]), part_starts(len(streams) + 1, fresh)[-1]
    for earlier, stream in zip(ops[first:], streams[first:], strict=True):
        coder.decode(earlier, stream)
    return coder.encode(op, params)


class _Coder:
    """The state that encoding and decoding share, for some convolutions in their order."""

    def __init__(self, library: ctypes.CDLL, ops: Sequence[Op]) -> None:
        shapes = (ConvShape * len(ops))(*map(_shape_of, ops))
        self._memory = np.empty(library.sqz_decoder_bytes(shapes, len(ops)), np.uint8)
        self._library, self._state = library, ctypes.c_void_p()
        status = library.sqz_decoder_create(
            shapes, len(ops), self._memory.ctypes.data, self._memory.nbytes, self._state
        )
        check_status(library, status, "weights")

    def decode(self, op: Op, stream: bytes) -> ConvParams:
        weight = np.empty((op.out_channels, op.in_channels, op.kernel, op.kernel), np.int8)
        params = ConvParams(weight, np.empty(op.out_channels, np.int32), np.empty(op.out_channels, np.float32))
        status = self._library.sqz_decode_conv(
            self._state, stream, len(stream), _shape_of(op), *(array.ctypes.data for array in _arrays(params))
        )
        check_status(self._library, status, op.name)
        return params

    def encode(self, op: Op, params: ConvParams, *, weights_alone: bool = False) -> bytes:
        check_encodable(op, params)
        shape, size = _shape_of(op), ctypes.c_size_t()
        memory = np.empty(self._library.sqz_encode_bytes(shape), np.uint8)
        arrays = [np.ascontiguousarray(array) for array in _arrays(params)]
        weight, bias, multiplier = (array.ctypes.data for array in arrays)
        status = self._library.sqz_encode_conv(
            self._state, shape, weight, *((None, None) if weights_alone else (bias, multiplier)),
            memory.ctypes.data, memory.nbytes, size,
        )  # fmt: skip
        check_status(self._library, status, op.name)
        return memory[: size.value].tobytes()


def _shape_of(op: Op) -> ConvShape:
    return ConvShape(op.in_channels, op.out_channels, op.kernel)


def _arrays(params: ConvParams) -> tuple[NDArray[np.int8], NDArray[np.int32], NDArray[np.float32]]:
    return params.weight, params.bias, params.multiplier
