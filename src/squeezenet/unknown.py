"""Rules that decide from a feature vector whether a photo shows none of the classes (docs/format.md, "Unknown").

A rule has one small integer vector per class, the typical direction of its photos, and a threshold. A photo is unknown
if the angle between its features and the nearest vector is too large. The arithmetic uses only integers, so that all
engines decide in the same way.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from .errors import BadTable

__all__ = [
    "MAX_VECTORS", "UNKNOWN_CHUNK", "UnknownFit", "UnknownRule", "class_vectors", "fit_unknown", "roots",
    "squared_cosines",
]  # fmt: skip

UNKNOWN_CHUNK: Final = b"unkn"
MAX_VECTORS: Final = 64
_KEPT_PERCENT: Final = 95  # of the right answers, by any threshold

_HEADER = struct.Struct("<BH")
_ONE = 1 << 16  # of a squared cosine: thresholds are in steps of 2^-16
_UNIT = 1 << 15  # length that feature vectors are scaled to before they are added up
_LARGEST = 15


@dataclass(frozen=True)
class UnknownRule:
    """The rule that decides whether a photo shows none of the classes.

    Raises:
        BadTable: If there are no vectors or too many, or a number is out of range.
    """

    vectors: NDArray[np.uint8]
    """(vectors, channels), from 0 to 15, in any order; `fit_unknown` makes one per class."""
    threshold: int
    """Smallest squared cosine between a known photo and its nearest vector, times 2^16: 0 to 65,535."""

    def __post_init__(self) -> None:
        """Check that a file can hold the rule."""
        shape = self.vectors.shape
        if self.vectors.dtype != np.uint8 or len(shape) != 2 or not 1 <= shape[0] <= MAX_VECTORS or not shape[1]:
            raise BadTable(
                f"expected 1 to {MAX_VECTORS} vectors of uint8 for an unknown rule, got {shape} {self.vectors.dtype}"
            )
        if not 0 <= self.threshold < _ONE:
            raise BadTable(f"expected a threshold from 0 to {_ONE - 1} for an unknown rule, got {self.threshold}")
        if int(self.vectors.max()) > _LARGEST:
            raise BadTable(f"expected vectors from 0 to {_LARGEST} for an unknown rule, got {self.vectors.max()}")

    def is_unknown(self, features: NDArray[np.integer]) -> NDArray[np.bool_]:
        """Decide for feature vectors (N, channels); shape (N,).

        Example:
            >>> rule = UnknownRule(np.array([[1, 0], [3, 4]], np.uint8), 58982)  # cosines of 0.949 and more are known
            >>> rule.is_unknown(np.array([[500, 100], [300, 400], [0, 9]]))
            array([False, False,  True])
        """
        return np.less(_nearest(features, self.vectors), self.threshold)

    def encode(self) -> bytes:
        """Encode the body of the file's `unkn` chunk, with half a byte per number."""
        even = np.pad(self.vectors, ((0, 0), (0, self.vectors.shape[1] % 2)))
        return _HEADER.pack(len(even), self.threshold) + (even[:, ::2] | even[:, 1::2] << 4).tobytes()

    @classmethod
    def decode(cls, data: bytes, channels: int) -> UnknownRule:
        """Decode the result of `encode`, for a network with `channels` features.

        Raises:
            BadTable: If the bytes are not valid.
        """
        expected = _HEADER.size + (channels + 1) // 2 * (data[0] if data else 1)
        if len(data) != expected:
            raise BadTable(f"unkn: expected {expected} bytes, got {len(data)}")
        if len(data) == _HEADER.size:
            raise BadTable(f"unkn: expected 1 to {MAX_VECTORS} vectors, got 0")
        count, threshold = _HEADER.unpack_from(data)
        halves = np.frombuffer(data, np.uint8, offset=_HEADER.size).reshape(count, -1)
        vectors = np.stack([halves & 15, halves >> 4], axis=2).reshape(count, -1)
        if vectors[:, channels:].any():
            raise BadTable("unkn: expected zeros after the last number of a vector")
        return cls(vectors[:, :channels].copy(), threshold)


@dataclass(frozen=True, kw_only=True)
class UnknownFit:
    """A rule, and its effect on photos that it was not made from."""

    rule: UnknownRule
    n_images: int
    """Number of photos of the classes that were used to choose the threshold."""
    kept: float
    """Percent of these that are known."""
    n_foreign: int
    """Photos of something else; 0 if none were given."""
    foreign_caught: float | None
    """Percent of these that are unknown; None if none were given."""


def squared_cosines(features: NDArray[np.integer], vectors: NDArray[np.integer]) -> NDArray[np.int64]:
    """Compare feature vectors (N, channels) with a rule's vectors (K, channels).

    Returns:
        The squared cosine of each pair, times 2^16 and rounded down, shape (N, K), int64; -1 where the cosine is not
        positive. These exact integers are compared with the threshold of docs/format.md.
    """
    x, v = features.astype(np.int64), vectors.astype(np.int64)
    dots = x.astype(np.float64) @ v.T.astype(np.float64)  # whole numbers below 2^40, whatever the order
    norms = (x * x).sum(axis=1)  # below 2^63
    sizes = (v * v).sum(axis=1)
    found = np.full(dots.shape, -1, np.int64)
    for row, column in zip(*np.nonzero(dots > 0), strict=True):
        dot = int(dots[row, column])  # Python's integers are of any length
        found[row, column] = dot * dot * _ONE // (int(norms[row]) * int(sizes[column]))
    return found


def class_vectors(sums: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Square sums of roots (K, channels), scaled so that the largest of each is 15, rounded half up."""
    largest = sums.max(axis=1, keepdims=True)
    scaled = sums * _UNIT // np.maximum(largest, 1)
    squared: NDArray[np.int64] = (2 * _LARGEST * scaled * scaled + _UNIT**2) // (2 * _UNIT**2)
    return squared.astype(np.uint8)


def roots(features: NDArray[np.integer]) -> NDArray[np.int64]:
    """Scale feature vectors (N, channels) to a length of 2^15 and take roots, both rounded down; 0 for negatives.

    Features that only a few photos of a class have weigh less in a mean of roots than in a plain mean.
    """
    x = features.astype(np.int64)
    lengths = np.array([max(1, math.isqrt(norm)) for norm in (x * x).sum(axis=1).tolist()], np.int64)
    unit = np.maximum(x, 0) * _UNIT // lengths[:, None]
    return np.sqrt((unit * _UNIT).astype(np.float64)).astype(np.int64)  # exact: below 2^31


def fit_unknown(
    features: NDArray[np.integer], labels: NDArray[np.integer], *, counts: NDArray[np.bool_] | None = None,
    judged: NDArray[np.integer] | None = None, foreign: NDArray[np.integer] | None = None,
) -> UnknownFit | None:  # fmt: skip
    """Make a rule from photos of the classes.

    The threshold keeps 95 % of the photos that count. With photos of something else it may be lower: it then maximises
    the share of photos kept plus the share of photos of something else that are rejected.

    Args:
        features: Features of photos of the classes, (N, channels), from which the vectors are made.
        labels: Their classes, (N,), from 0; a class without photos gets no vector.
        judged: Features of other photos of the classes, (J, channels), by which the threshold is chosen. By default,
            `features` are used, each compared with vectors that are made without it.
        counts: Which photos count for the threshold, (J,) or (N,): those that the network classifies correctly. By
            default, or if there are none, all of them.
        foreign: Features of photos that show none of the classes, (M, channels).

    Returns:
        The rule; None if there are no photos, or photos of more than `MAX_VECTORS` classes.
    """
    present, y = np.unique(labels, return_inverse=True)
    if not 1 <= len(present) <= MAX_VECTORS:
        return None
    unit = roots(features)
    sums = np.zeros((len(present), unit.shape[1]), np.int64)
    np.add.at(sums, y, unit)
    vectors = class_vectors(sums)
    known = _without_each(features, unit, y, sums, vectors) if judged is None else _nearest(judged, vectors)
    known = np.sort(known if counts is None or not counts.any() else known[counts])
    threshold = max(0, int(known[len(known) * (100 - _KEPT_PERCENT) // 100]))
    others = None if foreign is None or not len(foreign) else _nearest(foreign, vectors)
    if others is not None:
        threshold = _balanced(known, others, threshold)
    threshold = min(threshold, _ONE - 1)
    return UnknownFit(
        rule=UnknownRule(vectors, threshold),
        n_images=len(known),
        kept=100 * float((known >= threshold).mean()),
        n_foreign=0 if others is None else len(others),
        foreign_caught=None if others is None else 100 * float((others < threshold).mean()),
    )


def _nearest(features: NDArray[np.integer], vectors: NDArray[np.uint8]) -> NDArray[np.int64]:
    nearest: NDArray[np.int64] = squared_cosines(features, vectors).max(axis=1)
    return nearest


def _without_each(
    features: NDArray[np.integer], unit: NDArray[np.int64], y: NDArray[np.intp], sums: NDArray[np.int64],
    vectors: NDArray[np.uint8],
) -> NDArray[np.int64]:  # fmt: skip
    """Squared cosine of each photo to the nearest vector, where the vector of its own class is made without it."""
    scores = squared_cosines(features, vectors)
    for row, own in enumerate(y):
        rest = class_vectors((sums[own] - unit[row])[None])
        scores[row, own] = squared_cosines(features[row, None], rest)[0, 0]
    nearest: NDArray[np.int64] = scores.max(axis=1)
    return nearest


def _balanced(known: NDArray[np.int64], others: NDArray[np.int64], highest: int) -> int:
    """The threshold up to `highest` with the largest sum of shares kept and rejected; among equals the largest."""
    candidates = np.unique(np.append(known[(known >= 0) & (known < highest)], highest))
    kept = len(known) - np.searchsorted(known, candidates)
    caught = np.searchsorted(np.sort(others), candidates)
    worth = kept * len(others) + caught * len(known)
    return int(candidates[len(worth) - 1 - worth[::-1].argmax()])
