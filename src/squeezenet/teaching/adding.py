"""Adding photos to a lesson: docs/teaching.md, "What is kept"."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..data import ImageSet
from ..errors import DataError
from ..evaluation.features import Features
from ..text import match_key
from .taught import Lesson

__all__ = ["Added", "Repeated", "add_photos"]


class Repeated(NamedTuple):
    """A photo that is already in its class under another name."""

    name: str
    same_as: str


class Added(NamedTuple):
    """A lesson with added photos, and remarks on these photos."""

    lesson: Lesson
    repeated: tuple[Repeated, ...]
    """Photos that were skipped."""
    shared: tuple[tuple[str, ...], ...]
    """Names of photos that are in several classes, or in a class and among the photos of none."""


class _Row(NamedTuple):
    label: int
    code: bytes
    name: str


def add_photos(
    lesson: Lesson, images: ImageSet, found: Features, others: ImageSet | None = None, apart: Features | None = None
) -> Added:
    """Add photos class by class, in the given order; photos that their class already has are skipped.

    Args:
        lesson: The existing photos.
        images: Photos in class folders; classes with the same `match_key` are the same class.
        found: Features of `images`.
        others: Photos that show none of the classes.
        apart: Features of `others`.

    Raises:
        DataError: If a class has no photo.
    """
    classes = list(lesson.classes)
    position = {match_key(name): index for index, name in reversed(list(enumerate(classes)))}
    for name in images.classes:
        if match_key(name) not in position:
            position[match_key(name)] = len(classes)
            classes.append(name)
    new = [position[match_key(images.classes[images.labels[index]])] for index in found.indices.tolist()]
    rows, repeated = _once(
        [*_rows_of(lesson.labels.tolist(), lesson.codes, lesson.names), *_new_rows(new, lesson, images, found)]
    )
    if missing := sorted(set(range(len(classes))) - {row.label for row in rows}):
        raise DataError(f"{images.name}: expected a readable photo of each class, got none of {classes[missing[0]]!r}")
    strange = list(_rows_of([-1] * len(lesson.foreign_names), lesson.foreign_codes, lesson.foreign_names))
    if others is not None and apart is not None:
        strange += _new_rows([-1] * len(apart.indices), lesson, others, apart)
    strange, more = _once(strange)
    channels = lesson.codes.shape[1]
    joined = Lesson(
        network=lesson.network, code=lesson.code, classes=tuple(classes), kept=lesson.kept,
        labels=np.array([row.label for row in rows], np.int64), names=tuple(row.name for row in rows),
        codes=_stacked(rows, channels), foreign_names=tuple(row.name for row in strange),
        foreign_codes=_stacked(strange, channels),
    )  # fmt: skip
    return Added(joined, (*repeated, *more), _shared([*rows, *strange]))


def _rows_of(labels: Iterable[int], codes: NDArray[np.uint8], names: Iterable[str]) -> Iterable[_Row]:
    return (_Row(label, bytes(code), name) for label, code, name in zip(labels, codes, names, strict=True))


def _new_rows(labels: Iterable[int], lesson: Lesson, images: ImageSet, found: Features) -> Iterable[_Row]:
    names = (_short(images, index) for index in found.indices.tolist())
    return _rows_of(labels, lesson.code.encode(found.vectors), names)


def _once(rows: list[_Row]) -> tuple[list[_Row], list[Repeated]]:
    """Rows by class, within a class in order; of equal codes the first."""
    first: dict[tuple[int, bytes], str] = {}
    kept, repeated = [], []
    for row in rows:
        name = first.setdefault((row.label, row.code), row.name)
        if name is row.name:
            kept.append(row)
        elif name != row.name:  # else it is the very photo, read again
            repeated.append(Repeated(row.name, name))
    return sorted(kept, key=lambda row: row.label), repeated


def _shared(rows: list[_Row]) -> tuple[tuple[str, ...], ...]:
    places: dict[bytes, list[str]] = {}
    for row in rows:
        places.setdefault(row.code, []).append(row.name)
    return tuple(tuple(names) for names in places.values() if len(names) > 1)


def _stacked(rows: list[_Row], channels: int) -> NDArray[np.uint8]:
    return np.frombuffer(b"".join(row.code for row in rows), np.uint8).reshape(-1, channels)


def _short(images: ImageSet, index: int) -> str:
    """A photo's name from the class folder on."""
    return "/".join(images.items[index].name.replace("\\", "/").split("/")[-2:])
