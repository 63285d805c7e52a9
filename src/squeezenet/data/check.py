"""Checks of a data set before the first epoch: the header of every file is read, but no image is decoded.

Images that turn out to be damaged when they are decoded are skipped later, and count towards the same limit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, ImageError
from ..images import MAX_IMAGE_PIXELS, image_size
from ..preprocess import load_image
from .decode import Unreadable
from .imageset import ImageSet, summed_up

__all__ = ["MAX_UNREADABLE_SHARE", "DataCheck", "check_data", "refuse_unreadable"]

MAX_UNREADABLE_SHARE = 0.1

_HEADER_BYTES = 1 << 16

Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class DataCheck:
    """Results of the check, and the sets without their unreadable files."""

    train: ImageSet
    val: ImageSet | None
    train_sizes: NDArray[np.int64]
    """Width and height of every image of `train` as stored, shape (n, 2), pixels."""
    unreadable: tuple[Unreadable, ...]
    empty_classes: tuple[str, ...]
    """Classes to train on without images."""
    missing_in_val: tuple[str, ...]
    duplicates: tuple[tuple[str, str], ...]
    """Pairs (validation image, training image) of the same bytes."""
    ignored: tuple[tuple[str, str], ...]

    def summary(self) -> list[str]:
        """Summarise in lines of text: the first states the numbers of images, the others are warnings."""
        counts = sorted(self.train.class_counts().values())
        spread = str(counts[0]) if counts[0] == counts[-1] else f"{counts[0]} to {counts[-1]}"
        n_val = 0 if self.val is None else len(self.val)
        lines = [
            f"{len(self.train)} images to train on, {n_val} to validate on;"
            f" number of classes: {len(self.train.classes)}, with {spread} images each"
        ]
        lines += self.train.notes
        for problem, names in (
            ("unreadable, skipped", [f"{name} ({reason})" for name, reason in self.unreadable]),
            ("ignored", [f"{name} ({reason})" for name, reason in self.ignored]),
            ("class folders without images", self.empty_classes),
            ("classes without images to validate on", self.missing_in_val),
            (
                "images to validate on that are also trained on (their accuracy is meaningless)",
                [f"{one} = {other}" for one, other in self.duplicates],
            ),
        ):
            lines += summed_up(problem, names)
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        n_val = 0 if self.val is None else len(self.val)
        pairs = {name: [list(pair) for pair in getattr(self, name)] for name in ("unreadable", "ignored", "duplicates")}
        names = {name: list(getattr(self, name)) for name in ("empty_classes", "missing_in_val")}
        return {"n_train": len(self.train), "n_val": n_val, "class_counts": self.train.class_counts(), **pairs, **names}


def check_data(train: ImageSet, val: ImageSet | None = None, *, on_progress: Progress | None = None) -> DataCheck:
    """Read every header and compare the splits.

    Args:
        train: Images to train on.
        val: Images to validate on, with classes of their own numbering; comes back numbered as `train`.
        on_progress: Called now and then with the number of files looked at and the number of all.

    Raises:
        DataError: If too many files are unreadable, no class is left, or `val` has classes that `train` lacks.
    """
    total = len(train) + (0 if val is None else len(val))
    train_headers = _read_headers(train, on_progress, 0, total)
    val_headers = _read_headers(val, on_progress, len(train), total) if val is not None else []

    unreadable = [header for header in (*train_headers, *val_headers) if isinstance(header, Unreadable)]
    refuse_unreadable(unreadable, total)
    good = [index for index, header in enumerate(train_headers) if not isinstance(header, Unreadable)]
    readable, emptied = _drop_empty_classes(train.subset(good))
    readable_val: ImageSet | None = None
    missing_in_val: list[str] = []
    if val is not None:
        val_good = [index for index, header in enumerate(val_headers) if not isinstance(header, Unreadable)]
        readable_val = _drop_empty_classes(val.subset(val_good))[0].with_classes_of(readable)
        missing_in_val = [name for name, count in readable_val.class_counts().items() if not count]
    return DataCheck(
        train=readable,
        val=readable_val,
        train_sizes=np.array([header.size for header in train_headers if isinstance(header, _Header)], np.int64),
        unreadable=tuple(unreadable),
        empty_classes=tuple(sorted({*train.empty_classes, *emptied})),
        missing_in_val=tuple(sorted(missing_in_val)),
        duplicates=_find_duplicates(train, train_headers, val, val_headers) if val is not None else (),
        ignored=tuple(dict.fromkeys([*train.ignored, *(val.ignored if val else ())])),
    )


def refuse_unreadable(unreadable: Sequence[Unreadable], n_images: int) -> None:
    """Stop if more than `MAX_UNREADABLE_SHARE` of the files cannot be used.

    Raises:
        DataError: If so; the message names the first of them.
    """
    if len(unreadable) > MAX_UNREADABLE_SHARE * n_images:
        first = unreadable[0]
        raise DataError(
            f"expected at most {MAX_UNREADABLE_SHARE:.0%} unreadable images, got {len(unreadable)} of {n_images},"
            f" such as {first.name} ({first.reason}): remove or replace them"
        )


@dataclass(frozen=True)
class _Header:
    size: tuple[int, int]
    file_bytes: int
    digest: bytes
    """Digest of the first bytes only; if these agree, whole files are compared."""


def _read_headers(images: ImageSet, on_progress: Progress | None, done: int, total: int) -> list[_Header | Unreadable]:
    headers: list[_Header | Unreadable] = []
    for index, item in enumerate(images.items):
        try:
            headers.append(_read_header(images, index))
        except ImageError as error:
            headers.append(Unreadable(item.name, error.reason))
        if on_progress and (index % 1000 == 999 or index + 1 == len(images)):
            on_progress(done + index + 1, total)
    return headers


def _read_header(images: ImageSet, index: int) -> _Header:
    start = images.read(index, _HEADER_BYTES)
    size = image_size(start)
    if size is None:
        # The header is longer than the part read, or this is not an image: the full reader decides and raises the
        # error.
        data = images.read(index)
        size = image_size(data) or load_image(data).size
    if size[0] * size[1] > MAX_IMAGE_PIXELS:
        raise ImageError(f"expected at most {MAX_IMAGE_PIXELS} pixels, got {size[0]}x{size[1]}")
    return _Header(size, images.size_bytes(index), hashlib.blake2b(start, digest_size=16).digest())


def _drop_empty_classes(images: ImageSet) -> tuple[ImageSet, tuple[str, ...]]:
    counts = images.class_counts()
    kept = [name for name, count in counts.items() if count]
    if not kept:
        raise DataError(f"{images.name}: expected readable images, got none")
    positions = {name: kept.index(name) if count else -1 for name, count in counts.items()}
    return images.relabel(positions, kept), tuple(name for name, count in counts.items() if not count)


def _find_duplicates(
    train: ImageSet,
    train_headers: Sequence[_Header | Unreadable],
    val: ImageSet,
    val_headers: Sequence[_Header | Unreadable],
) -> tuple[tuple[str, str], ...]:
    candidates: dict[tuple[int, bytes], list[int]] = {}
    for index, header in enumerate(train_headers):
        if isinstance(header, _Header):
            candidates.setdefault((header.file_bytes, header.digest), []).append(index)
    pairs = []
    for index, header in enumerate(val_headers):
        if isinstance(header, Unreadable):
            continue
        for other in candidates.get((header.file_bytes, header.digest), []):
            if header.file_bytes <= _HEADER_BYTES or _same_bytes(val, index, train, other):
                pairs.append((val.items[index].name, train.items[other].name))
                break
    return tuple(pairs)


def _same_bytes(one: ImageSet, index: int, other: ImageSet, other_index: int) -> bool:
    try:
        return one.read(index) == other.read(other_index)
    except ImageError:
        return False
