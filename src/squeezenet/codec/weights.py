"""The probability model of a network's integers: weights, biases and multipliers.

`encode_convs` and `decode_convs` run the same walk over the convolutions of a network, once with an encoder, once with
a decoder; docs/coding.md is normative. Each convolution has its own stream, but what was learnt from one (contexts,
predictor coefficients) is where the next one starts, so streams decode in order. A large network has two parts: the
first stream of the second one is fresh, which means that it starts from nothing. Two threads can decode the parts.

* Multipliers: float32 bit patterns without the low bits that no multiplier of the layer uses, above the least of them.
* Biases: sign and magnitude, without the low bits that no bias uses.
* Codebook: a layer whose weights take few values codes positions in the sorted table of its values.
* References: a layer whose rows resemble earlier rows (conv10: related classes) names one for each.
* Weights: `prediction`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ..errors import BadTable, CodecError, FormatError
from ..network import ConvParams
from ..spec import Op
from .numbers import Coder, code_magnitude, code_raw, code_tree
from .prediction import MAX_ENERGY_SHIFT, WeightModel, code_weights
from .range_coder import Contexts, RangeDecoder, RangeEncoder
from .references import choose_references

__all__ = [
    "FRACTION_BITS", "check_encodable", "choose_fresh", "decode_convs", "encode_convs", "encode_next", "part_starts",
    "round_multiplier",
]  # fmt: skip

FRACTION_BITS = 8
_MIN_WEIGHTS_OF_TWO_PARTS = 2**18  # a smaller network is decoded in a few milliseconds
_HEAD_SHARES = (0.4, 0.6)  # share of the weights before the head, if the head alone is to be the second part


class _Model:
    """State that is carried from layer to layer."""

    def __init__(self) -> None:
        self.weights = WeightModel()
        self.bias_lengths, self.bias_bits = Contexts(32), Contexts(96)
        self.distance_lengths, self.distance_bits = Contexts(32), Contexts(96)
        self.codebook = Contexts(4)

    def relax(self) -> None:
        """Let every context adapt quickly again."""
        for contexts in vars(self).values():
            (contexts.contexts if isinstance(contexts, WeightModel) else contexts).relax()


def round_multiplier(values: NDArray[np.floating], fraction_bits: int = FRACTION_BITS) -> NDArray[np.float32]:
    """Round positive multipliers up to values with few fraction bits; a file stores only these bits.

    They are rounded up so that weights quantised with the resulting scale stay within their range.
    """
    fraction, exponent = np.frexp(np.asarray(values, np.float64))
    steps = np.ceil(np.ldexp(fraction, fraction_bits + 1))
    rounded: NDArray[np.float32] = np.ldexp(steps, exponent - fraction_bits - 1).astype(np.float32)
    return rounded


def choose_fresh(ops: Sequence[Op]) -> frozenset[int]:
    """Choose where the second part of a network begins: about half of the weights are in each.

    A head of about that size is the best second part: it has little in common with the layers before it, so that a
    fresh start costs next to nothing (0.01 % of SqueezeNet 1.1, elsewhere 0.1 %).

    Returns:
        Indices of the convolutions whose streams are fresh; none for a small network.
    """
    before = np.cumsum([0, *(op.out_channels * op.products_per_sum for op in ops)])
    if before[-1] < _MIN_WEIGHTS_OF_TWO_PARTS:
        return frozenset()
    shares = before[:-1] / before[-1]
    lowest, highest = _HEAD_SHARES
    at = len(ops) - 1 if lowest <= shares[-1] <= highest else int(np.abs(shares - 0.5).argmin())
    return frozenset({at} - {0})


def encode_convs(
    ops: Sequence[Op], convs: Mapping[str, ConvParams], fresh: Collection[int] = frozenset()
) -> list[bytes]:
    """Code the convolutions of a network, in order.

    Args:
        ops: The convolutions.
        convs: Their integers.
        fresh: Indices of those whose streams are fresh.

    Returns:
        One stream for each.

    Raises:
        CodecError: If a multiplier is negative, or a bias or weight is the lowest of its type.
    """
    model = _Model()
    streams = []
    for index, op in enumerate(ops):
        model = _Model() if index in fresh else model
        streams.append(_encode(model, op, convs[op.name]))
    return streams


def decode_convs(
    ops: Sequence[Op], streams: Sequence[bytes], fresh: Collection[int] = frozenset()
) -> dict[str, ConvParams]:
    """Decode the convolutions of a network; time and memory are bounded by the shapes of `ops`.

    Arguments are as for `encode_convs`.

    Raises:
        Truncated: If a stream ends early.
        BadTable: If one holds values no encoder writes, or goes on after the last weight.
    """
    model = _Model()
    convs = {}
    for index, (op, stream) in enumerate(zip(ops, streams, strict=True)):
        model = _Model() if index in fresh else model
        try:
            convs[op.name] = _decode(model, op, stream)
        except FormatError as error:
            raise type(error)(f"{op.name}: {error}") from None
    return convs


def encode_next(
    ops: Sequence[Op], streams: Sequence[bytes], op: Op, params: ConvParams, fresh: Collection[int] = frozenset()
) -> bytes:
    """Code one more convolution after those of existing streams, which are not changed.

    Args:
        ops: The convolutions before it.
        streams: Their streams.
        op: The new one.
        params: Its integers.
        fresh: As for `encode_convs`; the index of the new one may be among them.

    Raises:
        FormatError: If a stream is damaged.
        CodecError: As for `encode_convs`.
    """
    model, first = _Model(), part_starts(len(streams) + 1, fresh)[-1]
    for earlier, stream in zip(ops[first:], streams[first:], strict=True):
        _decode(model, earlier, stream)
    return _encode(model, op, params)


def part_starts(count: int, fresh: Collection[int]) -> list[int]:
    """Indices of the streams at which the parts of `count` streams begin; the first is 0."""
    return sorted({0, *fresh} & set(range(count)))


def check_encodable(op: Op, params: ConvParams) -> None:
    """Raise CodecError where a multiplier is negative, or a bias or weight is the lowest of its type."""
    words = params.multiplier.view(np.uint32)
    if (words >> 31).any() or (params.bias == -(2**31)).any() or (params.weight == -128).any():
        raise CodecError(f"{op.name}: expected positive multipliers, biases above -2^31 and weights above -128")


def _encode(model: _Model, op: Op, params: ConvParams) -> bytes:
    check_encodable(op, params)
    model.relax()
    encoder = RangeEncoder()
    _code_multipliers(encoder, params.multiplier.view(np.uint32).tolist())
    _code_biases(encoder, model, params.bias.tolist())
    codebook = _code_codebook(encoder, model, _codebook(params.weight))
    rows = params.weight.reshape(op.out_channels, -1).astype(np.int64)
    if codebook:
        rows = np.searchsorted(codebook, rows) - codebook.index(0)
    references = _code_references(encoder, model, choose_references(rows))
    # The power of two nearest to the mean square, times 256.
    energy_shift = max((int((rows**2).sum()) * 362 // rows.size).bit_length() - 1, 0)
    code_weights(encoder, model.weights, op, encoder.raw(5, energy_shift), references, (rows << 4).reshape(-1).tolist())
    return encoder.finish()


def _decode(model: _Model, op: Op, data: bytes) -> ConvParams:
    model.relax()
    decoder = RangeDecoder(data)
    words = _code_multipliers(decoder, [0] * op.out_channels)
    bias = _code_biases(decoder, model, [0] * op.out_channels)
    codebook = _code_codebook(decoder, model, [])
    references = _code_references(decoder, model, [-1] * op.out_channels)
    energy_shift = decoder.raw(5)
    if energy_shift > MAX_ENERGY_SHIFT:
        raise BadTable(f"expected an energy of at most {MAX_ENERGY_SHIFT}, got {energy_shift}")
    blank = [0] * (op.out_channels * op.products_per_sum)
    weight = np.array(code_weights(decoder, model.weights, op, energy_shift, references, blank), np.int64) >> 4
    decoder.finish()
    if codebook:
        weight += codebook.index(0)
        if weight.min() < 0 or weight.max() >= len(codebook):
            raise BadTable(f"a code points outside the codebook of {len(codebook)} values")
        weight = np.array(codebook, np.int64)[weight]
    return ConvParams(
        weight.astype(np.int8).reshape(op.out_channels, op.in_channels, op.kernel, op.kernel),
        np.array(bias, np.int32),
        np.array(words, np.uint32).view(np.float32),
    )


def _code_multipliers(coder: Coder, words: list[int]) -> list[int]:
    """Bit patterns of float32 values, without the low bits that are zero in all of them, above the least."""
    shift = coder.raw(5, min(_trailing_zeros(words), 31))
    least = code_raw(coder, 31 - shift, min(words) >> shift)
    width = coder.raw(5, ((max(words) >> shift) - least).bit_length())
    tree_bits = min(width, 6)
    contexts = Contexts(1 << tree_bits)
    for index, word in enumerate(words):
        above = (word >> shift) - least
        high = code_tree(coder, contexts, tree_bits, above >> (width - tree_bits))
        low = code_raw(coder, width - tree_bits, above & ((1 << (width - tree_bits)) - 1))
        words[index] = least + (high << (width - tree_bits) | low) << shift
        if words[index] >> 31:
            raise BadTable(f"expected a multiplier of 31 bits, got {words[index]:#x}")
    return words


def _code_biases(coder: Coder, model: _Model, values: list[int]) -> list[int]:
    """Sign and magnitude, without the low bits that are zero in all of them."""
    shift = coder.raw(5, _trailing_zeros(values) % 32)
    for index, value in enumerate(values):
        magnitude = code_magnitude(coder, model.bias_lengths, model.bias_bits, abs(value) >> shift)
        if magnitude:
            magnitude <<= shift
            if magnitude >> 31:
                raise BadTable(f"expected a bias of at most 31 bits, got {magnitude}")
            values[index] = -magnitude if coder.raw(1, int(value < 0)) else magnitude
    return values


def _codebook(weight: NDArray[np.int8]) -> list[int]:
    """The sorted values of a layer, zero among them, if a table of them pays; else nothing."""
    values: list[int] = np.union1d(weight, np.zeros(1, np.int8)).tolist()
    return values if len(values) <= max(values[-1], -values[0]) else []


def _code_codebook(coder: Coder, model: _Model, codebook: list[int]) -> list[int]:
    """A flag, then for each value but 0 whether it is there, its context whether the two before it are."""
    if not coder.raw(1, int(bool(codebook))):
        return []
    present = set(codebook)
    values = []
    history = 0
    for value in range(-127, 128):
        is_present = value == 0 or coder.bit(model.codebook, history, int(value in present))
        if is_present:
            values.append(value)
        history = (history << 1 & 2) | is_present
    return values


def _code_references(coder: Coder, model: _Model, references: list[int]) -> list[int]:
    """The earlier row that each row resembles: the one before it, unless a flag states that each row names its own."""
    previous = list(range(-1, len(references) - 1))
    if not coder.raw(1, int(references != previous)):
        return previous
    for row in range(2, len(references)):
        distance = code_magnitude(coder, model.distance_lengths, model.distance_bits, row - references[row])
        if not 1 <= distance <= row:
            raise BadTable(f"row {row} refers {distance} rows back")
        references[row] = row - distance
    return previous[:2] + references[2:]


def _trailing_zeros(values: list[int]) -> int:
    """Number of low bits that are zero in all values; 32 if all are zero."""
    union = 1 << 32
    for value in values:
        union |= abs(value)
    return (union & -union).bit_length() - 1
