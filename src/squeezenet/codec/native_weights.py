"""Decoding weight streams in C: the same integers as `weights.decode_conv`, about a thousand times faster.

Use this when `load_library()` found the compiled part; `fileformat` does.
"""

from __future__ import annotations

import numpy as np

from ..native_library import ConvShape, check_status, load_library
from ..network import ConvParams
from ..spec import Op
from .weights import decode_conv

__all__ = ["decode_conv_fast"]


def decode_conv_fast(op: Op, data: bytes) -> ConvParams:
    """Decode one convolution in C, or in Python where the compiled part is absent.

    Raises:
        Truncated: If the stream ends early.
        BadTable: If it holds values no encoder writes, or goes on after the last weight.
    """
    library = load_library()
    if library is None:
        return decode_conv(op, data)
    weight = np.empty((op.out_channels, op.in_channels, op.kernel, op.kernel), np.int8)
    bias = np.empty(op.out_channels, np.int32)
    multiplier = np.empty(op.out_channels, np.float32)
    status = library.sqz_decode_conv(
        data,
        len(data),
        ConvShape(op.in_channels, op.out_channels, op.kernel),
        weight.ctypes.data,
        bias.ctypes.data,
        multiplier.ctypes.data,
    )
    check_status(library, status, op.name)
    return ConvParams(weight, bias, multiplier)
