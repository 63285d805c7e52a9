"""Decoding weight streams in C: the integers of `weights.decode_convs`, some hundred times faster."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np

from ..native_library import ConvShape, check_status, load_library
from ..network import ConvParams
from ..spec import Op
from .weights import decode_convs

__all__ = ["decode_convs_fast"]


def decode_convs_fast(ops: Sequence[Op], streams: Sequence[bytes]) -> dict[str, ConvParams]:
    """Decode the convolutions of a network; time and memory are bounded by the shapes of `ops`.

    Raises:
        Truncated: If a stream ends early.
        BadTable: If one holds values no encoder writes, or goes on after the last weight.
    """
    library = load_library()
    if library is None:
        return decode_convs(ops, streams)
    shapes = (ConvShape * len(ops))(*(ConvShape(op.in_channels, op.out_channels, op.kernel) for op in ops))
    memory = np.empty(library.sqz_decoder_bytes(shapes, len(ops)), np.uint8)
    decoder = ctypes.c_void_p()
    status = library.sqz_decoder_create(shapes, len(ops), memory.ctypes.data, memory.nbytes, decoder)
    check_status(library, status, "weights")
    convs = {}
    for op, stream, shape in zip(ops, streams, shapes, strict=True):
        weight = np.empty((op.out_channels, op.in_channels, op.kernel, op.kernel), np.int8)
        bias, multiplier = np.empty(op.out_channels, np.int32), np.empty(op.out_channels, np.float32)
        status = library.sqz_decode_conv(
            decoder, stream, len(stream), shape, weight.ctypes.data, bias.ctypes.data, multiplier.ctypes.data
        )
        check_status(library, status, op.name)
        convs[op.name] = ConvParams(weight, bias, multiplier)
    return convs
