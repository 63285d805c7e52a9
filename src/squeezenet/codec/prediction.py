"""The walk over a layer's weights: two adaptive predictors, and the decisions whose contexts they choose.

A weight is coded as a zero flag, a sign, and a magnitude (bit length in unary, then the bits below the leading one).
Two linear predictors, adapted after each weight, look at what is near it. The mean predictor estimates the weight from
the same filter's earlier kernel positions, the same place in a reference row, and the column's mean; the size predictor
estimates its magnitude from the magnitudes of the same neighbours and from running averages of its column and row. The
logarithms of both estimates choose the contexts. All of it is integer arithmetic that fits 64 bits.

Source: adaptive prediction from neighbours is what lossless audio coders do (Ghido and Tabus 2013); the choice of
neighbours, contexts and constants was measured on networks (docs/coding.md, dev/LOG.md).
"""

from __future__ import annotations

from itertools import chain
from operator import mul

from ..spec import Op
from .numbers import Coder
from .range_coder import Contexts

__all__ = ["AGREEMENTS", "LEVELS", "LEVEL_OF", "MAX_EARLIER", "MAX_ENERGY_SHIFT", "WeightModel", "code_weights"]

MAX_ENERGY_SHIFT = 22  # mean squares up to 127^2

# Estimates have seven fraction bits and end at 127; their levels are thirds of an octave: 3 * log2(v / 4 + 1).
_MAX_ESTIMATE = (1 << 14) - 1
LEVEL_OF = [((estimate + 4) ** 3).bit_length() - 7 for estimate in range(_MAX_ESTIMATE + 1)]
LEVELS = LEVEL_OF[-1] + 1
_MAX_LENGTH = 7  # bit length of magnitudes up to 127
AGREEMENTS = 6
# Where the contexts of each decision begin.
_ZERO = 0
_SIGN = _ZERO + LEVELS * 8
_LENGTH = _SIGN + (LEVELS // 6 + 1) * 8
_MANTISSA = _LENGTH + LEVELS * AGREEMENTS * 8
_CONTEXTS = _MANTISSA + LEVELS * 64

# Coefficients have 21 fraction bits. The second predictor starts from the averages of column and row.
_MAX_COEFFICIENT = 1 << 21
_MAX_STEP = 511
MAX_EARLIER = 8
_AVERAGE_COEFFICIENTS = [1 << 20, 1 << 19]


class WeightModel:
    """State that is carried from layer to layer: contexts, and the predictors' coefficients for each kernel size."""

    def __init__(self) -> None:
        self.contexts = Contexts(_CONTEXTS)
        self._predictors: dict[int, list[tuple[list[int], list[int]]]] = {}

    def predictors(self, kernel: int) -> list[tuple[list[int], list[int]]]:
        """Coefficients of the mean and the size predictor for each kernel position."""
        if kernel not in self._predictors:
            self._predictors[kernel] = [
                ([0] * (earlier + 2), [0] * (earlier + 1) + _AVERAGE_COEFFICIENTS)
                for earlier in _earlier_positions(kernel)
            ]
        return self._predictors[kernel]


def code_weights(
    coder: Coder, model: WeightModel, op: Op, energy_shift: int, references: list[int], symbols: list[int]
) -> list[int]:
    """Code the weights of a layer; `symbols` are in sixteenths, so that they compare with averages."""
    bit, contexts, level_of, limit = coder.bit, model.contexts, LEVEL_OF, _MAX_ESTIMATE
    row_size, channels, predictors = op.products_per_sum, op.in_channels, model.predictors(op.kernel)
    row_shifts = [min(6, max(3, (index + 1).bit_length())) for index in range(row_size)]
    plan = list(zip(row_shifts, _earlier_positions(op.kernel) * channels, predictors * channels, strict=True))
    mean_shift, size_shift = energy_shift + 9, energy_shift + 10
    mean_half, size_half = 1 << (mean_shift - 1), 1 << (size_shift - 1)
    # Running averages of magnitudes (and, for columns, of values) with eight fraction bits.
    layer_size = (218 if energy_shift & 1 else 154) << (energy_shift >> 1) >> 4
    column_sizes, column_means, position = [layer_size] * row_size, [0] * row_size, -1
    for row, reference in enumerate(references):
        for coefficients in chain.from_iterable(predictors):
            _saturate(coefficients)
        reference_row = symbols[reference * row_size : (reference + 1) * row_size] if row else [0] * row_size
        column_shift = min(5, max(2, (row + 1).bit_length()))
        row_average = layer_size
        for index, (row_shift, earlier, (mean_coefficients, size_coefficients)) in enumerate(plan):
            position += 1
            column_size, column_mean = column_sizes[index], column_means[index]
            near = symbols[position - earlier : position]
            near.append(reference_row[index])
            sizes = list(map(abs, near))
            near.append(column_mean >> 4)
            sizes += (column_size >> 4, row_average >> 4)
            mean = sum(map(mul, mean_coefficients, near))
            size = sum(map(mul, size_coefficients, sizes))

            # Conditional expressions, here and below: calls of min and max would take a tenth of the time.
            estimate, least = size >> 18, layer_size >> 5
            estimate = least if estimate < least else limit if estimate > limit else estimate
            level = level_of[estimate]
            estimate = (-mean if mean < 0 else mean) >> 18
            certainty = (level_of[limit if estimate > limit else estimate] - level + 11) >> 1
            certainty = 0 if certainty < 0 else 7 if certainty > 7 else certainty
            magnitude = abs(symbol := symbols[position])
            if bit(contexts, _ZERO + level * 8 + certainty, symbol != 0):
                is_expected_negative = mean < 0
                is_surprise = bit(contexts, _SIGN + level // 6 * 8 + certainty, (symbol < 0) != is_expected_negative)
                agreement = (5 if certainty > 3 else 0) if is_surprise else max(certainty - 3, 0)
                magnitude = _code_size(coder, contexts, level, agreement, magnitude >> 4) << 4
                symbol = -magnitude if is_surprise != is_expected_negative else magnitude
                symbols[position] = symbol

            step = ((symbol << 21) - mean + mean_half) >> mean_shift
            if step:
                step = _MAX_STEP if step > _MAX_STEP else -_MAX_STEP if step < -_MAX_STEP else step
                mean_coefficients[:] = [old + step * value for old, value in zip(mean_coefficients, near, strict=True)]
            step = ((magnitude << 21) - size + size_half) >> size_shift
            if step:
                step = _MAX_STEP if step > _MAX_STEP else -_MAX_STEP if step < -_MAX_STEP else step
                size_coefficients[:] = [old + step * value for old, value in zip(size_coefficients, sizes, strict=True)]
            magnitude <<= 4
            column_sizes[index] = column_size + ((magnitude - column_size) >> column_shift)
            column_means[index] = column_mean + (((symbol << 4) - column_mean) >> column_shift)
            row_average += (magnitude - row_average) >> row_shift
            layer_size += (magnitude - layer_size) >> 7
    return symbols


def _earlier_positions(kernel: int) -> list[int]:
    """For each position of a filter, how many of those before it the predictors look at."""
    return [min(position, MAX_EARLIER) for position in range(kernel * kernel)]


def _saturate(coefficients: list[int]) -> None:
    """Bound coefficients, so that 64 bits hold every sum of products until the next row."""
    for slot, value in enumerate(coefficients):
        coefficients[slot] = max(-_MAX_COEFFICIENT, min(_MAX_COEFFICIENT, value))


def _code_size(coder: Coder, contexts: Contexts, level: int, agreement: int, magnitude: int) -> int:
    """Code a magnitude from 1 to 127: its bit length in unary, then the bits below the leading one."""
    base = _LENGTH + (level * AGREEMENTS + agreement) * 8
    length = 1
    while length < _MAX_LENGTH and coder.bit(contexts, base + length, magnitude >> length != 0):
        length += 1
    base = _MANTISSA + (level * 8 + length) * 8
    value = 1
    remaining = length - 1
    while remaining and value < 8:
        remaining -= 1
        value = value << 1 | coder.bit(contexts, base + value, magnitude >> remaining & 1)
    if remaining:
        value = value << remaining | coder.raw(remaining, magnitude & ((1 << remaining) - 1))
    return value
