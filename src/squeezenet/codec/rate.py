"""The cost of weights in bits: the model of `prediction` in NumPy, over whole columns, for rate-distortion rounding.

The coder walks along rows and adapts as it goes; rounding goes column by column over all rows at once. `RateModel.fit`
finds a layer's predictors by least squares and the probability of each decision by counting; a `ColumnPass` then prices
candidates of one column. Averages of the column come from a first guess of all its rows (the coder knows the earlier
ones only), the reference row is left out, and probabilities do not adapt: totals were within 2 % of the coded bytes on
whole networks, and up to 6 % high for conv10. Where the coder would use a codebook, pass positions in it.

    model = RateModel.fit(weight)                        # (O, I, k, k)
    columns = model.start()
    for index in range(products_per_sum):                # the order of a flattened row
        bits = columns.bits(guess, candidates)           # guess (O,), candidates (O, C) -> (O, C)
        columns.append(chosen)                           # (O,)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .prediction import AGREEMENTS, LEVEL_OF, LEVELS, MAX_EARLIER

__all__ = ["ColumnPass", "RateModel", "layer_bits"]

_Floats = NDArray[np.float64]
_Integers = NDArray[np.int64]

_LEVEL_OF = np.array(LEVEL_OF)
_MAGNITUDES = np.arange(128)
_LENGTHS = np.frexp(_MAGNITUDES)[1]  # bit lengths
_RIDGE = 0.01  # of the mean square of all weights: keeps coefficients of silent neighbours small


@dataclass(frozen=True)
class RateModel:
    """Static costs of one layer's decisions, in bits."""

    out_channels: int
    kernel: int
    mean_coefficients: tuple[_Floats, ...]
    """For each kernel position: earlier positions, column mean."""
    size_coefficients: tuple[_Floats, ...]
    """For each kernel position: earlier positions, column average, row average."""
    least_size: float
    """Floor of the size estimate."""
    zero_bits: _Floats
    """(levels, certainties, 2): last axis 1 for a weight that is not zero."""
    sign_bits: _Floats
    """(levels / 6, certainties, 2): last axis 1 for the sign that was not expected."""
    size_bits: _Floats
    """(levels, agreements, 128) by magnitude."""

    @classmethod
    def fit(cls, weight: NDArray[np.integer]) -> RateModel:
        """Fit to a layer.

        Args:
            weight: Integers from -127 to 127, shape (O, I, k, k), such as a first rounding without regard to rate.
        """
        kernel = weight.shape[-1]
        rows = weight.reshape(len(weight), -1).astype(np.int64)
        positions = kernel * kernel
        sizes = np.abs(rows)
        row_averages = _row_averages(sizes)
        ridge = _RIDGE * float((rows.astype(np.float64) ** 2).mean()) + 1e-9
        means, magnitudes = [], []
        for position in range(positions):
            mean_inputs, size_inputs = _inputs(rows, row_averages, position, positions)
            means.append(_least_squares(mean_inputs, rows[:, position::positions].reshape(-1), ridge))
            magnitudes.append(_least_squares(size_inputs, sizes[:, position::positions].reshape(-1), ridge))
        least_size = float(sizes.mean()) / 16
        level, certainty, expected = np.empty_like(rows), np.empty_like(rows), np.empty_like(rows)
        for position in range(positions):
            mean_inputs, size_inputs = _inputs(rows, row_averages, position, positions)
            found = _contexts(mean_inputs @ means[position], size_inputs @ magnitudes[position], least_size)
            for array, values in zip((level, certainty, expected), found, strict=True):
                array[:, position::positions] = values.reshape(len(rows), -1)
        return cls(
            len(rows), kernel, tuple(means), tuple(magnitudes), least_size, *_count(rows, level, certainty, expected)
        )

    def start(self) -> ColumnPass:
        """Begin a pass over the layer's columns."""
        return ColumnPass(self)


class ColumnPass:
    """Prices the columns of a layer in order, all rows at once."""

    def __init__(self, model: RateModel) -> None:
        self._model = model
        self._index = 0
        self._row_average = np.full(model.out_channels, model.least_size * 16)
        self._earlier: list[_Integers] = []  # columns of the current filter

    def bits(self, guess: NDArray[np.integer], candidates: NDArray[np.integer]) -> _Floats:
        """Price candidates for the next column.

        Args:
            guess: A first guess of the whole column, shape (O,), such as the nearest integers: it stands for the
                averages of the column.
            candidates: Shape (O, C), from -127 to 127.

        Returns:
            Bits, shape (O, C).
        """
        model = self._model
        near = self._earlier[-MAX_EARLIER:] if self._earlier else []
        position = self._index % (model.kernel * model.kernel)
        mean_coefficients, size_coefficients = model.mean_coefficients[position], model.size_coefficients[position]
        mean: _Floats = mean_coefficients[-1] * np.full(len(guess), guess.mean())
        size: _Floats = size_coefficients[-2] * np.abs(guess).mean() + size_coefficients[-1] * self._row_average
        for slot, column in enumerate(near):
            mean += mean_coefficients[slot] * column
            size += size_coefficients[slot] * np.abs(column)
        level, certainty, expected = (array[:, None] for array in _contexts(mean, size, model.least_size))
        magnitude = np.abs(candidates)
        is_nonzero = (magnitude > 0).astype(np.int64)
        is_surprise = ((candidates < 0) != (expected < 0)).astype(np.int64)
        nonzero_bits = (
            model.sign_bits[level // 6, certainty, is_surprise]
            + model.size_bits[level, _agreement(certainty, is_surprise), magnitude]
        )
        bits: _Floats = model.zero_bits[level, certainty, is_nonzero] + is_nonzero * nonzero_bits
        return bits

    def append(self, chosen: NDArray[np.integer]) -> None:
        """Fix the column that `bits` priced: integers of shape (O,)."""
        model = self._model
        self._row_average += (np.abs(chosen) - self._row_average) / (1 << _row_shift(self._index))
        self._earlier.append(chosen.astype(np.int64))
        self._index += 1
        if self._index % (model.kernel * model.kernel) == 0:
            self._earlier = []


def layer_bits(weight: NDArray[np.integer], model: RateModel | None = None) -> float:
    """Estimate what a layer costs in total, in bits; with its own fit if no other is given."""
    model = model or RateModel.fit(weight)
    columns, total = model.start(), 0.0
    for column in weight.reshape(len(weight), -1).T:
        total += float(columns.bits(column, column[:, None]).sum())
        columns.append(column)
    return total


def _row_shift(index: int) -> int:
    return min(6, max(3, (index + 1).bit_length()))


def _row_averages(sizes: _Integers) -> _Floats:
    """The row's running average before each weight, shape (O, N)."""
    averages = np.empty(sizes.shape)
    average = np.full(len(sizes), sizes.mean())
    for index in range(sizes.shape[1]):
        averages[:, index] = average
        average += (sizes[:, index] - average) / (1 << _row_shift(index))
    return averages


def _inputs(rows: _Integers, row_averages: _Floats, position: int, positions: int) -> tuple[_Floats, _Floats]:
    """Inputs of both predictors for all weights at one kernel position, shape (O * I, inputs)."""
    here = rows[:, position::positions]
    near = [rows[:, earlier::positions] for earlier in range(max(0, position - MAX_EARLIER), position)]
    column_mean = np.broadcast_to(here.mean(axis=0), here.shape)
    column_size = np.broadcast_to(np.abs(here).mean(axis=0), here.shape)
    mean_inputs = [*near, column_mean]
    size_inputs = [*map(np.abs, near), column_size, row_averages[:, position::positions]]
    return _columns(mean_inputs), _columns(size_inputs)


def _columns(arrays: list[NDArray[np.generic]]) -> _Floats:
    return np.stack([array.reshape(-1) for array in arrays], axis=1).astype(np.float64)


def _least_squares(inputs: _Floats, targets: _Integers, ridge: float) -> _Floats:
    gram = inputs.T @ inputs + ridge * len(inputs) * np.eye(inputs.shape[1])
    return np.asarray(np.linalg.solve(gram, inputs.T @ targets.astype(np.float64)), np.float64)


def _contexts(mean: _Floats, size: _Floats, least_size: float) -> tuple[_Integers, _Integers, _Integers]:
    """Level, certainty and expected sign, as in `prediction`."""
    limit = len(_LEVEL_OF) - 1
    level = _LEVEL_OF[np.clip(np.maximum(size, least_size) * 128, 0, limit).astype(np.int64)]
    certainty = np.clip((_LEVEL_OF[np.minimum(np.abs(mean) * 128, limit).astype(np.int64)] - level + 11) >> 1, 0, 7)
    return level, certainty, np.where(mean < 0, -1, 1)


def _agreement(certainty: _Integers, is_surprise: _Integers) -> _Integers:
    agreement: _Integers = np.where(is_surprise == 1, np.where(certainty > 3, 5, 0), np.maximum(certainty - 3, 0))
    return agreement


def _count(rows: _Integers, level: _Integers, certainty: _Integers, expected: _Integers) -> tuple[_Floats, ...]:
    """Costs of the decisions from how often they fell which way."""
    is_nonzero = rows != 0
    zero = np.zeros((LEVELS, 8, 2))
    np.add.at(zero, (level, certainty, is_nonzero.astype(np.int64)), 1)
    level, certainty, values = level[is_nonzero], certainty[is_nonzero], rows[is_nonzero]
    is_surprise = ((values < 0) != (expected[is_nonzero] < 0)).astype(np.int64)
    sign = np.zeros((LEVELS // 6 + 1, 8, 2))
    np.add.at(sign, (level // 6, certainty, is_surprise), 1)
    agreement, magnitude = _agreement(certainty, is_surprise), np.abs(values)
    size_bits = np.zeros((LEVELS, AGREEMENTS, 128))
    # Bit length in unary, by level and agreement.
    for length in range(1, 7):
        goes_on = np.zeros((LEVELS, AGREEMENTS, 2))
        here = _LENGTHS[magnitude] >= length
        np.add.at(goes_on, (level[here], agreement[here], (_LENGTHS[magnitude[here]] > length).astype(np.int64)), 1)
        cost = _cost(goes_on)
        size_bits[:, :, length == _LENGTHS] += cost[:, :, :1]
        size_bits[:, :, length < _LENGTHS] += cost[:, :, 1:]
    # The bits below the leading one: three with contexts of level, length and the bits above them, then raw ones.
    for depth in range(1, 7):
        deep = depth < _LENGTHS
        if depth > 3:
            size_bits[:, :, deep] += 1
            continue
        shift = np.maximum(_LENGTHS - 1 - depth, 0)
        node = (_LENGTHS * 8) + (_MAGNITUDES >> (shift + 1))
        chosen = (_MAGNITUDES >> shift) & 1
        counts = np.zeros((LEVELS, 64, 2))
        here = deep[magnitude]
        np.add.at(counts, (level[here], node[magnitude[here]], chosen[magnitude[here]]), 1)
        cost = _cost(counts)
        size_bits[:, :, deep] += cost[:, node[deep], chosen[deep]][:, None]
    return _cost(zero), _cost(sign), size_bits


def _cost(counts: _Floats) -> _Floats:
    """Bits of each outcome; half an occurrence is added to each, as an adaptive context would have to learn it."""
    smooth = counts + 0.5
    bits: _Floats = -np.log2(smooth / smooth.sum(axis=-1, keepdims=True))
    return bits
