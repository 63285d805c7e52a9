"""The head's arithmetic in NumPy: docs/teaching.md is normative; `csrc/sqz_teach.c` computes the same bits in C.

Sums of integers are exact in any order and may use BLAS. Every other sum is computed in the order that the page
states, element by element, so that no compiler, library or processor changes a bit.

Legend: n photos, d features, C classes, m the smaller of n and d.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..codec.weights import round_multiplier
from ..network import MAX_ABS_WEIGHT, ConvParams

__all__ = ["GAINS", "FeatureCode", "Fit", "fit_numpy", "kept_levels", "quantize_head"]

Floats = NDArray[np.float64]

LARGEST_EXPONENT, SMALLEST_EXPONENT, FIRST_EXPONENT = 2, -8, -1
GAINS = (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
DEFAULT_GAIN = 8
LOST_PERCENT = 10  # of the photos that are left out, to classes that are kept
_PANEL = 64  # photos at a time, so that they stay in the processor's cache
_LEAST_REST = 2.0**-30
_LEAST_MULTIPLIER, _LARGEST_MULTIPLIER = 2.0**-40, 2.0**20
_LARGEST_BIAS = 1 << 30


@dataclass(frozen=True)
class FeatureCode:
    """Encoding of feature vectors: one byte per channel, on a square-root scale.

    A code r stands for r * r * 2^shift, with the sign of the feature if features can be negative.
    """

    shift: int
    is_signed: bool

    @classmethod
    def of(cls, positions: int, *, is_signed: bool) -> FeatureCode:
        """Choose the code of a network by how many positions its head reads and whether features can be negative."""
        bits = 14 if is_signed else 16
        return cls(max(0, (255 * positions).bit_length() - bits), is_signed)

    def encode(self, features: NDArray[np.integer]) -> NDArray[np.uint8]:
        """Code feature vectors of any shape."""
        magnitude = np.abs(features.astype(np.int64)) >> self.shift
        root = np.floor(np.sqrt(magnitude.astype(np.float64)) + 0.5).astype(np.int64)
        if not self.is_signed:
            return np.minimum(root, 255).astype(np.uint8)
        return (128 + np.where(features < 0, -1, 1) * np.minimum(root, 127)).astype(np.uint8)

    def decode(self, codes: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Decode to integers in units of 2^shift."""
        root = codes.astype(np.int64) - (128 if self.is_signed else 0)
        return root * np.abs(root)


@dataclass(frozen=True)
class Fit:
    """A head before it is rounded, and the leave-one-out scores of each photo."""

    weight: Floats
    """(d, C), for values minus the centre; with levels (d, C + 1), the last column being theirs."""
    centre: NDArray[np.int64]
    """(d,)"""
    scores: Floats
    """(n, C), leave-one-out: about 1 for the class that a photo shows, 0 for the others."""
    exponent: int
    """The regularisation is the mean squared norm of a photo times 2^exponent."""
    gain: int
    """Factor that converts scores to logits."""
    base: float | None = None
    """With levels: constant that is added to all logits besides the last column."""


def fit_numpy(
    values: NDArray[np.int64], classes: NDArray[np.int64], n_classes: int, levels: Floats | None = None
) -> Fit:
    """Fit a ridge regression of one-hot classes, each class with the same weight in all.

    Args:
        values: (n, d), from `FeatureCode.decode`.
        classes: (n,), ascending; every class occurs.
        n_classes: C.
        levels: The largest logit of the classes that are kept, for each photo, (n,); None if none are.
    """
    counts = np.bincount(classes, minlength=n_classes)
    share = 1.0 / (n_classes * counts).astype(np.float64)  # of the total weight, a photo's, by class
    starts = np.concatenate([[0], np.cumsum(counts)])
    mean = np.zeros(values.shape[1])
    for c in range(n_classes):
        mean += values[starts[c] : starts[c + 1]].sum(axis=0).astype(np.float64) / counts[c]
    centre = np.rint(mean / n_classes).astype(np.int64)
    problem = _Problem.build(values - centre, classes, share, starts, levels)
    exponent = FIRST_EXPONENT
    best = problem.solve(exponent)
    is_judged = counts[classes] > 1
    if is_judged.any():
        for step in (1, -1):  # uphill or downhill as long as it gets better
            while SMALLEST_EXPONENT <= exponent + step <= LARGEST_EXPONENT:
                other = problem.solve(exponent + step)
                if not _error(other.errors[:, :n_classes], is_judged) < _error(best.errors[:, :n_classes], is_judged):
                    break
                best, exponent = other, exponent + step
            if exponent != FIRST_EXPONENT:
                break
    hot = np.zeros((len(classes), n_classes))
    hot[np.arange(len(classes)), classes] = 1.0
    off = best.errors / problem.root[classes][:, None]
    scores = hot - off[:, :n_classes]
    gain = _gain(scores, hot, share[classes], is_judged)
    base = None
    if levels is not None:
        above = np.sort((gain * scores.max(axis=1) - off[:, n_classes])[is_judged if is_judged.any() else slice(None)])
        base = float(problem.mean_level - above[len(above) * LOST_PERCENT // 100])
    return Fit(problem.weight(best), centre, scores, exponent, gain, base)


@dataclass(frozen=True)
class _Solution:
    errors: Floats
    """(n, C) or, with levels, (n, C + 1): leave-one-out, times the root of a photo's share."""
    residuals: Floats
    """Likewise, of the fit to all photos."""
    ridge: float


@dataclass(frozen=True)
class _Problem:
    z: Floats
    """(n, d), whole numbers."""
    classes: NDArray[np.int64]
    share: Floats
    """(C,)"""
    root: Floats
    """(C,), of the share"""
    starts: NDArray[np.int64]
    gram: Floats
    """(m, m), weighted: between photos if there are no more of them than features, else between features."""
    trace: float
    levels: Floats | None
    """(n,), minus their mean, times the root of a photo's share"""
    mean_level: float

    @classmethod
    def build(
        cls, z: NDArray[np.int64], classes: NDArray[np.int64], share: Floats, starts: NDArray[np.int64],
        levels: Floats | None,
    ) -> _Problem:  # fmt: skip
        x, root = z.astype(np.float64), np.sqrt(share)
        if len(x) <= x.shape[1]:
            gram = (root[classes][:, None] * root[classes]) * (x @ x.T)
        else:
            gram = np.zeros((x.shape[1], x.shape[1]))
            for c, (first, last) in enumerate(zip(starts[:-1], starts[1:], strict=True)):
                gram += share[c] * (x[first:last].T @ x[first:last])
        trace = float(np.cumsum(np.diag(gram))[-1])
        mean_level = 0.0 if levels is None else float(np.cumsum(share[classes] * levels)[-1])
        off_mean = None if levels is None else root[classes] * (levels - mean_level)
        return cls(x, classes, share, root, starts, gram, trace, off_mean, mean_level)

    def solve(self, exponent: int) -> _Solution:
        n, d = self.z.shape
        classes, n_classes = self.classes, len(self.share)
        is_dual = n <= d
        ridge = self.trace / n * 2.0**exponent or 1.0
        scaled = self.root[classes]
        matrix = self.gram.copy()
        matrix[np.diag_indices_from(matrix)] += ridge
        right = np.eye(n) if is_dual else scaled * self.z.T
        _factor(matrix)
        for first in range(0, n, _PANEL):
            panel = np.ascontiguousarray(right[:, first : first + _PANEL])
            _substitute(matrix, panel, first if is_dual else 0)
            right[:, first : first + _PANEL] = panel
        leverage = np.zeros(n)
        for row in right:
            leverage += row * row
        sums = np.zeros((n_classes, len(right)))
        for i, column in enumerate(np.ascontiguousarray(right.T)):
            sums[classes[i]] += scaled[i] * column
        total = np.zeros(len(right))
        for row in sums:
            total += row
        sums -= total / n_classes
        if self.levels is not None:
            of_levels = np.zeros(len(right))
            for level, column in zip(self.levels, np.ascontiguousarray(right.T), strict=True):
                of_levels += level * column
            sums = np.vstack([sums, of_levels])
        fitted = np.zeros((n, len(sums)))
        for row, of_classes in zip(right, np.ascontiguousarray(sums.T), strict=True):
            fitted += np.multiply.outer(row, of_classes)
        if is_dual:
            residuals, rest = ridge * fitted, ridge * leverage - self.share[classes]
        else:
            targets = np.repeat((scaled * (0.0 - 1.0 / n_classes))[:, None], n_classes, axis=1)
            targets[np.arange(n), classes] = scaled * (1.0 - 1.0 / n_classes)
            if self.levels is not None:
                targets = np.hstack([targets, self.levels[:, None]])
            residuals, rest = targets - fitted, (1.0 - leverage) - self.share[classes]
        return _Solution(residuals / np.maximum(rest, _LEAST_REST)[:, None], residuals, ridge)

    def weight(self, solution: _Solution) -> Floats:
        weight = np.zeros((self.z.shape[1], solution.residuals.shape[1]))
        scaled = self.root[self.classes][:, None] * solution.residuals
        for row, of_classes in zip(self.z, scaled, strict=True):
            weight += np.multiply.outer(row, of_classes)
        return weight / solution.ridge


def _factor(matrix: Floats) -> None:
    """Replace the lower triangle of a matrix by L, where L L^T is the matrix.

    Right-looking: each step takes its products off all that is left, so every element sees the steps in order.
    """
    size = len(matrix)
    products = np.empty(size * size)
    for k in range(size):
        matrix[k, k] = np.sqrt(matrix[k, k])
        column = matrix[k + 1 :, k]
        column /= matrix[k, k]
        left = matrix[k + 1 :, k + 1 :]
        left -= np.multiply.outer(column, column, out=products[: left.size].reshape(left.shape))


def _substitute(factor: Floats, right: Floats, first_row: int) -> None:
    """Replace the right side by L^-1 times it; rows before the first one are 0."""
    products = np.empty(right.size)
    for k in range(first_row, len(factor)):
        row, below = right[k], right[k + 1 :]
        row /= factor[k, k]
        below -= np.multiply.outer(factor[k + 1 :, k], row, out=products[: below.size].reshape(below.shape))


def _in_order(parts: Iterator[Floats] | Floats) -> Floats:
    total = np.zeros(0)
    for index, part in enumerate(parts):
        total = part if index == 0 else total + part
    return total


def _error(errors: Floats, is_judged: NDArray[np.bool_]) -> float:
    """Weighted mean square of the leave-one-out errors."""
    squares = _in_order((errors * errors).T)
    return float(np.cumsum(squares[is_judged])[-1])


def _gain(scores: Floats, hot: Floats, share: Floats, is_judged: NDArray[np.bool_]) -> int:
    """The factor with the smallest leave-one-out Brier score (mean squared error of probabilities)."""
    if not is_judged.any():
        return DEFAULT_GAIN
    below = scores[is_judged] - scores[is_judged].max(axis=1, keepdims=True)
    best, least = DEFAULT_GAIN, np.inf
    for gain in GAINS:
        powers = _power_of_e(gain * below)
        errors = powers / _in_order(powers.T)[:, None] - hot[is_judged]
        score = float(np.cumsum(share[is_judged] * _in_order((errors * errors).T))[-1])
        if score < least:
            best, least = gain, score
    return best


def _power_of_e(x: Floats) -> Floats:
    """Nearly e^x for x <= 0, from products alone: (1 + x / 1024)^1024."""
    power = np.maximum(1.0 + x / 1024.0, 0.0)
    for _ in range(10):
        power = power * power
    return power


def quantize_head(fit: Fit, code: FeatureCode, positions: int) -> ConvParams:
    """Round a head to the integers of a file.

    Args:
        fit: The head.
        code: Of the features it was fitted to.
        positions: P of docs/format.md, padding included.
    """
    n_classes = fit.scores.shape[1]
    unit = float(positions) / 2.0**code.shift  # from a weight for values to one for a position's mean
    weight, start = fit.gain * fit.weight[:, :n_classes].T, fit.gain / n_classes
    if fit.base is not None:
        weight, start = weight + fit.weight[:, n_classes], start + fit.base
    weight = np.ascontiguousarray(weight) * unit
    largest = np.abs(weight).max(axis=1)
    multiplier = round_multiplier(np.clip(largest / MAX_ABS_WEIGHT, _LEAST_MULTIPLIER, _LARGEST_MULTIPLIER / 2))
    multiplier[largest == 0] = 2.0**-16
    step = multiplier.astype(np.float64)
    integers = np.clip(np.rint(weight / step[:, None]), -MAX_ABS_WEIGHT, MAX_ABS_WEIGHT).astype(np.int64)
    offset = (integers @ (fit.centre << code.shift)).astype(np.float64) / positions
    bias = np.rint(np.clip(start / step - offset, -_LARGEST_BIAS, _LARGEST_BIAS))
    return ConvParams(integers.astype(np.int8)[:, :, None, None], bias.astype(np.int32), multiplier)


def kept_levels(codes: NDArray[np.uint8], code: FeatureCode, head: ConvParams, positions: int) -> Floats:
    """Compute the largest logit of a head, taken without its ReLU, for photos (n, d): shape (n,)."""
    values = (code.decode(codes) << code.shift).astype(np.float64)
    sums = values @ head.weight[:, :, 0, 0].T.astype(np.float64) + positions * head.bias.astype(np.float64)
    logits: Floats = sums * head.multiplier.astype(np.float64) / positions
    return np.asarray(logits.max(axis=1))
