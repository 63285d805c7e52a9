"""The choice of a reference row for each row of a layer: a choice of the encoder, not part of the format.

Rows of conv10 are classes, and related classes have related rows. Naming the most similar earlier row costs about seven
bits and lets the mean predictor of `weights` look at it. Other layers rarely gain, and then say so in one bit.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["choose_references"]

# Bits saved by a correlation in practice, relative to -log2(1 - r^2) / 2 per weight for Gaussians.
_REALISED_SHARE = 0.6
_MAX_ROWS = 8192  # beyond, all pairs of rows would cost more time than the bits are worth
_BLOCK = 128  # rows that are compared with the earlier ones at a time


def choose_references(rows: NDArray[np.int64]) -> list[int]:
    """Choose for each row the earlier row that saves the most bits, if that pays for the layer as a whole.

    Args:
        rows: Weights, shape (O, N).

    Returns:
        Row indices, shape (O,); -1 for row 0. Without a gain, each row refers to the one before it.
    """
    count = len(rows)
    previous = list(range(-1, count - 1))
    if not 3 <= count <= _MAX_ROWS:
        return previous
    floats = rows.astype(np.float64)
    norms = np.sqrt((floats**2).sum(axis=1))
    best, gains = np.empty(count, np.int64), np.empty(count)
    for start in range(2, count, _BLOCK):
        chosen = np.arange(start, min(start + _BLOCK, count))
        earlier = np.arange(chosen[-1])
        # Sums of products of whole numbers, exact in any order.
        correlation = (floats[chosen] @ floats[earlier].T) / np.maximum(np.outer(norms[chosen], norms[earlier]), 1.0)
        worth = -0.5 * _REALISED_SHARE * rows.shape[1] * _log2(1 - np.clip(correlation, 0, 0.995) ** 2)
        distance = np.subtract.outer(chosen, earlier)
        cost = np.where(distance > 1, np.floor(np.log2(np.maximum(distance, 1))) + 3, 1)
        found = np.where(distance >= 1, worth - cost, -np.inf).argmax(axis=1)
        # The best of many rows may be similar by chance, which is worth about log2(rows) bits; this is added to its
        # cost.
        penalty = np.where(found == chosen - 1, 1, 2 * _log2(chosen.astype(np.float64)))
        own = np.arange(len(chosen))
        best[chosen], gains[chosen] = found, worth[own, found] - worth[own, chosen - 1] - penalty
    if np.cumsum(gains[2:])[-1] <= 0:
        return previous
    references: list[int] = previous[:2] + best[2:].tolist()
    return references


def _log2(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Logarithm by steps of one rounding each, which every engine repeats: libraries differ in their last bits."""
    fraction, exponent = np.frexp(x)
    is_low = fraction < 0.7071067811865476
    fraction, exponent = np.where(is_low, fraction + fraction, fraction), exponent - is_low
    t = (fraction - 1.0) / (fraction + 1.0)
    square = t * t
    total = np.full_like(t, 1.0 / 21.0)
    for k in range(19, 0, -2):
        total = total * square + 1.0 / k
    return exponent + 2.0 * t * total * 1.4426950408889634
