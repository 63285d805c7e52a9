"""The probability model of a convolution's integers: weights, biases and multipliers.

`encode_conv` and `decode_conv` run the same walk over a layer, one with an encoder, one with a decoder; docs/format.md
describes it.

* Multipliers: float32 values with at most eight fraction bits, as exponent and fraction, or "same as the one before".
* Biases: sign and magnitude, magnitude as its bit length and the bits below the leading one.
* Weights: a zero flag whose context is how large the weights nearby are (in the same column of earlier outputs, and in
  the same row), a raw sign, and the magnitude as its bit length and the bits below the leading one. A layer whose
  weights take few values (a codebook) codes positions in the sorted table of its values instead of the values.

Use this when you have the integers of one layer; `fileformat` stores whole networks.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..errors import BadTable, CodecError
from ..network import ConvParams
from ..spec import Op
from .range_coder import Contexts, RangeDecoder, RangeEncoder

__all__ = ["FRACTION_BITS", "decode_conv", "encode_conv", "round_multiplier"]

FRACTION_BITS = 8
_MAX_CODEBOOK = 255

_Coder = RangeEncoder | RangeDecoder

# How a neighbourhood of weights (0 to 480) maps to one of twelve contexts.
_LEVEL_BOUNDS = (1, 4, 8, 13, 19, 26, 36, 50, 72, 110, 180)
_LEVELS = len(_LEVEL_BOUNDS) + 1
_LEVEL_OF = [sum(value >= bound for bound in _LEVEL_BOUNDS) for value in range(512)]
_MAX_CLASSES = 8  # bit lengths of magnitudes up to 255


def round_multiplier(values: NDArray[np.floating], fraction_bits: int = FRACTION_BITS) -> NDArray[np.float32]:
    """Round positive multipliers up to the nearest ones that a file can hold.

    Up, so that weights quantised with the resulting scale stay within their range.
    """
    fraction, exponent = np.frexp(np.asarray(values, np.float64))
    steps = np.ceil(np.ldexp(fraction, fraction_bits + 1))
    rounded: NDArray[np.float32] = np.ldexp(steps, exponent - fraction_bits - 1).astype(np.float32)
    return rounded


def encode_conv(op: Op, params: ConvParams) -> bytes:
    """Code one convolution.

    Raises:
        CodecError: If a multiplier has more fraction bits than a file can hold.
    """
    encoder = RangeEncoder()
    _code_multipliers(encoder, op.out_channels, params.multiplier)
    _code_biases(encoder, op.out_channels, params.bias.tolist())
    codebook = _code_codebook(encoder, _codebook(params.weight))
    symbols = params.weight.reshape(-1).astype(np.int64)
    if codebook:
        symbols = np.searchsorted(codebook, symbols) - codebook.index(0)
    _code_weights(encoder, op, symbols.tolist())
    return encoder.finish()


def decode_conv(op: Op, data: bytes) -> ConvParams:
    """Decode one convolution; time and memory are bounded by the shape of `op`.

    Raises:
        Truncated: If the stream ends early.
        BadTable: If it holds values no encoder writes, or goes on after the last weight.
    """
    decoder = RangeDecoder(data)
    multiplier = _code_multipliers(decoder, op.out_channels, np.zeros(op.out_channels, np.float32))
    bias = _code_biases(decoder, op.out_channels, [0] * op.out_channels)
    codebook = _code_codebook(decoder, [])
    symbols = np.array(_code_weights(decoder, op, [0] * (op.out_channels * op.products_per_sum)), np.int64)
    if codebook:
        symbols += codebook.index(0)
        if symbols.min() < 0 or symbols.max() >= len(codebook):
            raise BadTable(f"{op.name}: a code points outside its codebook of {len(codebook)} values")
        symbols = np.array(codebook, np.int64)[symbols]
    if np.abs(symbols).max() > 127:
        raise BadTable(f"{op.name}: expected weights from -127 to 127, got {np.abs(symbols).max()}")
    if not decoder.is_exhausted:
        raise BadTable(f"{op.name}: its stream goes on after the last weight")
    shape = (op.out_channels, op.in_channels, op.kernel, op.kernel)
    return ConvParams(symbols.astype(np.int8).reshape(shape), np.array(bias, np.int32), multiplier)


def _code_multipliers(coder: _Coder, count: int, values: NDArray[np.float32]) -> NDArray[np.float32]:
    words = values.view(np.uint32).tolist()
    is_same, exponent_bits, fraction_bits = Contexts(1), Contexts(256), Contexts(256)
    previous = 0
    for index in range(count):
        word = words[index] >> (23 - FRACTION_BITS)
        if word << (23 - FRACTION_BITS) != words[index]:
            raise CodecError(f"expected multipliers with {FRACTION_BITS} fraction bits, got {values[index]!r}")
        if not coder.bit(is_same, 0, int(word == previous)):
            exponent = _code_tree(coder, exponent_bits, 8, word >> FRACTION_BITS)
            fraction = _code_tree(coder, fraction_bits, FRACTION_BITS, word & ((1 << FRACTION_BITS) - 1))
            previous = exponent << FRACTION_BITS | fraction
        words[index] = previous << (23 - FRACTION_BITS)
    return np.array(words, np.uint32).view(np.float32)


def _code_biases(coder: _Coder, count: int, values: list[int]) -> list[int]:
    lengths, top_bits = Contexts(32), Contexts(96)
    for index in range(count):
        magnitude = abs(values[index])
        length = _code_tree(coder, lengths, 5, magnitude.bit_length())
        if length:
            is_negative = coder.raw(1, int(values[index] < 0))
            magnitude = _code_below_leading_one(coder, top_bits, length, magnitude)
            values[index] = -magnitude if is_negative else magnitude
    return values


def _codebook(weight: NDArray[np.int8]) -> list[int]:
    """The sorted values of a layer, zero among them, if a table of them pays; else nothing."""
    values: list[int] = np.union1d(weight, np.zeros(1, np.int8)).tolist()
    span = max(values[-1], -values[0])
    return values if len(values) <= min(_MAX_CODEBOOK, span) else []


def _code_codebook(coder: _Coder, codebook: list[int]) -> list[int]:
    size = coder.raw(8, len(codebook))
    values = [coder.raw(8, codebook[index] + 128 if codebook else 0) - 128 for index in range(size)]
    if size and (values != sorted(set(values)) or 0 not in values):
        raise BadTable("expected a codebook of increasing values with 0 among them")
    return values


def _code_weights(coder: _Coder, op: Op, symbols: list[int]) -> list[int]:
    is_nonzero, lengths, top_bits = Contexts(_LEVELS), Contexts(_LEVELS * _MAX_CLASSES), Contexts(96)
    bit, raw, level_of = coder.bit, coder.raw, _LEVEL_OF
    columns = [0] * op.products_per_sum
    position = row = 0
    for _ in range(op.out_channels):
        for index, column in enumerate(columns):
            level = level_of[row + column]
            symbol = symbols[position]
            if bit(is_nonzero, level, symbol != 0):
                is_negative = raw(1, symbol < 0)
                magnitude = abs(symbol)
                # The bit length in unary, its context the neighbourhood; then the bits below the leading one.
                length = 1
                base = level * _MAX_CLASSES
                while length < _MAX_CLASSES and bit(lengths, base + length, magnitude >> length != 0):
                    length += 1
                magnitude = _code_below_leading_one(coder, top_bits, length, magnitude) if length > 1 else 1
                symbols[position] = -magnitude if is_negative else magnitude
                energy = min(magnitude, 15) << 4
                columns[index] = column + ((energy - column) >> 2)
                row += (energy - row) >> 3
            else:
                columns[index] = column - ((column + 3) >> 2)
                row -= (row + 7) >> 3
            position += 1
    return symbols


def _code_tree(coder: _Coder, contexts: Contexts, bits: int, value: int) -> int:
    """Code a value of `bits` bits from its highest bit down; each bit's context is the bits above it."""
    node = 1
    for shift in range(bits - 1, -1, -1):
        node = node << 1 | coder.bit(contexts, node, value >> shift & 1)
    return node - (1 << bits)


def _code_below_leading_one(coder: _Coder, contexts: Contexts, length: int, magnitude: int) -> int:
    """Code the bits below the leading one of a magnitude whose bit length is known.

    The first bit's context is the length, the second's the length and the first; later ones are raw.
    """
    value = 1
    remaining = length - 1
    if remaining:
        remaining -= 1
        value = 2 | coder.bit(contexts, length, magnitude >> remaining & 1)
    if remaining:
        remaining -= 1
        value = value << 1 | coder.bit(contexts, 32 * (1 + (value & 1)) + length, magnitude >> remaining & 1)
    while remaining:
        step = min(remaining, 8)
        remaining -= step
        value = value << step | coder.raw(step, magnitude >> remaining & ((1 << step) - 1))
    return value
