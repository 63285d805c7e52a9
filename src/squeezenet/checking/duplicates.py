"""Photos that differ only in crop, brightness or compression.

Candidates are pairs of photos with features of nearly the same direction. Pixels decide: one of the two, cropped by up
to a third of either side, is compared with the other, and must agree in its greys and in their fine structure.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ..progress import Reporter, SilentReporter
from .looks import LOOK_SIZE

__all__ = ["groups_of", "near_duplicates", "neighbours"]

Floats = NDArray[np.float32]

MIN_COSINE = 0.8
"""Smallest cosine between the features of two photos that are compared by pixels."""

N_NEIGHBOURS = 8
"""Largest number of photos that each photo is compared with."""

MAX_PAIRS = 4
"""Largest number of pairs per photo, on average, that are compared closely, the most similar first."""

MIN_FIRST = 0.8
MIN_COARSE = 0.95
MIN_FINE = 0.6

_ROWS = 512  # photos at a time against all others
_FIRST_SIDE, _SIDE = 16, 32  # pixels of the pictures that are laid over each other: at first, and to decide
_KEPT = (1.0, 0.9, 0.8, 0.7)  # parts of a side that a cut keeps, at first
_STEPS = {3.0: 0.6, 1.5: 0.8, 0.75: 0.88, 0.4: 0.93}
"""By how many pixels of LOOK_SIZE a cut's sides are moved to fit better, and how well it has to fit before."""


def neighbours(
    features: NDArray[np.integer], others: NDArray[np.integer] | None = None, *, count: int = N_NEIGHBOURS
) -> Iterator[list[tuple[int, float]]]:
    """Find the nearest feature vectors by cosine.

    Args:
        features: (N, channels).
        others: Vectors to search, (M, channels); by default `features`, without the vector itself.
        count: Number of neighbours to find for each vector.

    Yields:
        Positions and cosines of the neighbours of each vector, nearest first.

    Example:
        >>> list(neighbours(np.array([[3, 4], [30, 40], [4, 3]]), count=1))
        [[(1, 1.0)], [(0, 1.0)], [(0, 0.96)]]
    """
    x = _directions(features)
    y = x if others is None else _directions(others)
    wanted = min(count, len(y) - (others is None))
    for first in range(0, len(x), _ROWS):
        cosines = x[first : first + _ROWS] @ y.T
        if others is None:
            rows = np.arange(len(cosines))
            cosines[rows, first + rows] = -2
        best = np.argpartition(-cosines, max(wanted - 1, 0), axis=1)[:, :wanted]
        for row, columns in zip(cosines, best, strict=True):
            order = sorted(columns.tolist(), key=lambda column: (-row[column], column))
            yield [(column, round(float(row[column]), 6)) for column in order]


def near_duplicates(
    features: NDArray[np.integer], greys: NDArray[np.uint8], reporter: Reporter | None = None
) -> list[tuple[int, int]]:
    """Find pairs of photos that show the same picture.

    Args:
        features: Feature vectors of the photos, (N, channels).
        greys: The photos in grey, scaled to (N, 64, 64).
        reporter: Shows how many pairs are compared by pixels.

    Returns:
        Pairs of positions, the lower first. If many photos show one picture, there are enough pairs to connect them.
    """
    candidates: dict[tuple[int, int], float] = {}
    for one, nearest in enumerate(neighbours(features)):
        candidates |= {(min(one, o), max(one, o)): cosine for o, cosine in nearest if cosine >= MIN_COSINE}
    partners: dict[int, list[int]] = {}
    for one, other in candidates:
        partners.setdefault(one, []).append(other)
        partners.setdefault(other, []).append(one)
    wholes = _normalised(_resized(greys.astype(np.float32), [_operator(0, LOOK_SIZE, _FIRST_SIDE)])[:, 0])
    likely: dict[tuple[int, int], list[tuple[float, int, int]]] = {}
    for cut, others in partners.items():
        for whole, score in _alike(greys[cut], wholes, others):
            likely.setdefault((min(cut, whole), max(cut, whole)), []).append((score, whole, cut))
    group, found = list(range(len(greys))), []
    order = sorted(likely, key=lambda pair: (-max(likely[pair])[0], pair))[: MAX_PAIRS * len(greys)]
    with (reporter or SilentReporter()).task("pairs", len(order), "pairs") as task:
        for done, pair in enumerate(order, start=1):
            roots = [_root(group, photo) for photo in pair]
            ways = sorted(likely[pair], reverse=True)
            if roots[0] != roots[1] and any(_is_same(greys[whole], greys[cut]) for _, whole, cut in ways):
                group[roots[1]] = roots[0]
                found.append(pair)
            task.update(done)
    return found


def _root(group: list[int], photo: int) -> int:
    while group[photo] != photo:
        group[photo] = group[group[photo]]
        photo = group[photo]
    return photo


def groups_of(pairs: list[tuple[int, int]]) -> list[list[int]]:
    """Join pairs that share a photo; positions sorted.

    Example:
        >>> groups_of([(4, 7), (0, 1), (1, 4), (8, 9)])
        [[0, 1, 4, 7], [8, 9]]
    """
    group_of: dict[int, set[int]] = {}
    for one, other in pairs:
        joined = group_of.get(one, {one}) | group_of.get(other, {other})
        group_of |= dict.fromkeys(joined, joined)
    return [list(group) for group in sorted({tuple(sorted(group)) for group in group_of.values()})]


def _directions(features: NDArray[np.integer]) -> Floats:
    x = features.astype(np.float64)
    lengths = np.linalg.norm(x, axis=1, keepdims=True)
    return (x / np.where(lengths > 0, lengths, 1)).astype(np.float32)


@functools.lru_cache(2048)  # cuts come back from pair to pair
def _operator(low: float, high: float, side: int) -> Floats:
    """The matrix (side, LOOK_SIZE) that averages the pixels from `low` to `high` in equal parts."""
    edges = np.linspace(low, high, side + 1)[:, None]
    pixels = np.arange(LOOK_SIZE)
    covered = np.minimum(edges[1:], pixels + 1) - np.maximum(edges[:-1], pixels)
    shares: Floats = (np.maximum(covered, 0) * (side / (high - low))).astype(np.float32)
    shares.flags.writeable = False
    return shares


def _first_operators() -> Floats:
    """Operators of all cuts along one side that are tried first."""
    cuts = []
    for kept in _KEPT:
        free = LOOK_SIZE * (1 - kept)
        cuts += [_operator(low, low + LOOK_SIZE * kept, _FIRST_SIDE) for low in (sorted({0.0, free / 2, free}))]
    return np.stack(cuts)


def _resized(greys: Floats, operators: list[Floats] | Floats) -> Floats:
    """Every pair of cuts down and across: (N, cuts squared, side, side)."""
    across = np.stack(list(operators))
    cuts, side, width = across.shape
    flat = across.reshape(cuts * side, width)
    views = flat @ greys @ flat.T  # two products for each photo
    pairs: Floats = views.reshape(-1, cuts, side, cuts, side).transpose(0, 1, 3, 2, 4).reshape(-1, cuts**2, side, side)
    return pairs


def _normalised(views: Floats) -> Floats:
    """Pictures (..., side, side) as unit vectors about their mean."""
    flat = views.reshape(*views.shape[:-2], -1)
    flat = flat - flat.mean(axis=-1, keepdims=True)
    lengths = np.linalg.norm(flat, axis=-1, keepdims=True)
    unit: Floats = flat / np.where(lengths > 1e-3, lengths, np.inf)
    return unit


_FIRST = _first_operators()


def _alike(cut: NDArray[np.uint8], wholes: Floats, others: list[int]) -> list[tuple[int, float]]:
    """Those of some photos over which a cut of one may be laid, and how well the best of the first cuts fits."""
    views = _normalised(_resized(cut[None].astype(np.float32), _FIRST)[0])
    best = (views @ wholes[others].T).max(axis=0).tolist()
    return [(other, score) for other, score in zip(others, best, strict=True) if score >= MIN_FIRST]


def _is_same(whole: NDArray[np.uint8], cut: NDArray[np.uint8]) -> bool:
    """Whether some cut of one photo lies over the other."""
    source = cut.astype(np.float32)
    picture = _resized(whole[None].astype(np.float32), [_operator(0, LOOK_SIZE, _SIDE)])[0, 0]
    target = _normalised(picture)

    def view(box: tuple[float, ...]) -> Floats:
        return np.asarray(_operator(box[0], box[1], _SIDE) @ source @ _operator(box[2], box[3], _SIDE).T, np.float32)

    def score(box: tuple[float, ...]) -> float:
        is_legal = all(a >= 0 and b <= LOOK_SIZE and b - a >= 0.6 * LOOK_SIZE for a, b in (box[:2], box[2:]))
        if not is_legal:
            return -1.0
        seen = view(box).ravel()  # `target` has a mean of 0
        variance = float(seen @ seen) / seen.size - float(seen.mean()) ** 2
        return float(seen @ target) / (variance * seen.size) ** 0.5 if variance > 1e-6 else 0.0

    box = _best_first(source, picture)
    best = score(box)
    for step, needed in _STEPS.items():
        if best < needed:
            return False
        improved = True
        while improved:
            improved = False
            for side in range(4):
                for move in (step, -step):
                    other = (*box[:side], box[side] + move, *box[side + 1 :])
                    if (value := score(other)) > best + 1e-4:
                        box, best, improved = other, value, True
    return best >= MIN_COARSE and float(_normalised(_detail(view(box))) @ _normalised(_detail(picture))) >= MIN_FINE


def _best_first(source: Floats, picture: Floats) -> tuple[float, ...]:
    small = picture.reshape(_FIRST_SIDE, _SIDE // _FIRST_SIDE, _FIRST_SIDE, -1).mean(axis=(1, 3))
    views = _normalised(_resized(source[None], _FIRST)[0])
    down, across = divmod(int((views @ _normalised(small)).argmax()), len(_FIRST))
    ends = []
    for operator in (_FIRST[down], _FIRST[across]):
        touched = np.flatnonzero(operator.any(axis=0))
        ends += [float(touched[0]), float(touched[-1] + 1)]
    return tuple(ends)


def _detail(picture: Floats) -> Floats:
    """A picture less its blur."""
    padded = np.pad(picture, 1, mode="edge")
    side = picture.shape[0]
    blurred = sum(padded[r : r + side, c : c + side] for r in range(3) for c in range(3)) / 9
    found: Floats = picture - blurred
    return found
