"""Labelled images: which files belong to which class and split, read lazily.

Layouts understood, in a folder or a zip: `<class>/...`, `train/<class>/...` with or without `val/<class>/...`, and
any of these inside one wrapper folder. Several sources join by class name. No image is decoded here.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

from ..errors import DataError
from .sources import Listing, Source, open_source

__all__ = ["DataSource", "ImageItem", "ImageSet", "Split", "evenly_spaced", "open_data", "open_train_and_val"]

Split = Literal["train", "val", "test"]
DataSource = str | os.PathLike[str]

_SPLIT_FOLDERS: dict[str, Split] = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
_MAX_NAMED = 5


class ImageItem(NamedTuple):
    """One image: where it lies, for messages, and its position in `ImageSet.classes`."""

    name: str
    label: int | None


class _HasClasses(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def classes(self) -> tuple[str, ...]: ...


@dataclass(frozen=True)
class ImageSet:
    """Images with labels, in an order that is the same on every machine; may be pickled for worker processes."""

    name: str
    classes: tuple[str, ...]
    """Class names, sorted; empty for unlabelled images."""
    items: tuple[ImageItem, ...]
    splits: tuple[Split, ...]
    """Splits that the sources offer (not only the one chosen); empty where they have no split folders."""
    empty_classes: tuple[str, ...] = ()
    """Class folders without a single image; they are no classes."""
    ignored: tuple[tuple[str, str], ...] = ()
    """Name and reason of files that are left out."""
    _sources: tuple[Source, ...] = dataclasses.field(default=(), repr=False)
    _keys: tuple[tuple[int, Any], ...] = dataclasses.field(default=(), repr=False)

    def __len__(self) -> int:
        """Count the images."""
        return len(self.items)

    @property
    def labels(self) -> tuple[int, ...]:
        """Class positions of all images; raises `DataError` if they have no classes."""
        labels = tuple(item.label for item in self.items if item.label is not None)
        if len(labels) != len(self.items):
            raise DataError(f"{self.name}: expected images in class folders, got images without classes")
        return labels

    def read(self, index: int, limit: int | None = None) -> bytes:
        """Return an image's encoded bytes, or the first `limit`; raises `ImageError` as `Source.read` does."""
        source, key = self._keys[index]
        return self._sources[source].read(key, limit)

    def size_bytes(self, index: int) -> int:
        """Return the size of an image's file; 0 if it is gone."""
        source, key = self._keys[index]
        return self._sources[source].size_bytes(key)

    def class_counts(self) -> dict[str, int]:
        """Count the images of every class, in class order."""
        counts = [0] * len(self.classes)
        for label in self.labels:
            counts[label] += 1
        return dict(zip(self.classes, counts, strict=True))

    def subset(self, indices: Iterable[int]) -> ImageSet:
        """Keep some images, in the order given, and all classes."""
        chosen = tuple(indices)
        items, keys = (tuple(self.items[i] for i in chosen), tuple(self._keys[i] for i in chosen))
        return dataclasses.replace(self, items=items, _keys=keys)

    def sample(self, n: int) -> ImageSet:
        """Keep at most `n` images (at least 1), evenly spaced over the set; the first and the last are among them.

        Example:
            >>> digits = open_data("digits", split="val")
            >>> [item.name for item in digits.sample(3).items]
            ['digits/val/0/0036.png', 'digits/val/4/1788.png', 'digits/val/9/1795.png']
        """
        return self.subset(evenly_spaced(len(self), n))

    def relabel(self, positions: Mapping[str, int], classes: Sequence[str]) -> ImageSet:
        """Number the classes as another set or a model does.

        Args:
            positions: New position of every class of this set, for example from `Labels.match`.
            classes: Names of all classes in the new order.
        """
        table = [positions[name] for name in self.classes]
        items = tuple(item._replace(label=None if item.label is None else table[item.label]) for item in self.items)
        return dataclasses.replace(self, items=items, classes=tuple(classes))

    def with_classes_of(self, other: _HasClasses) -> ImageSet:
        """Number the classes as `other` does, by name.

        Raises:
            DataError: If a class of this set is missing in `other`.
        """
        positions = {name: index for index, name in enumerate(other.classes)}
        if unknown := [name for name in self.classes if name not in positions]:
            raise DataError(
                f"{self.name}: expected only classes of {other.name} ({_shorten(other.classes)}),"
                f" got also {_shorten(unknown)}: rename or remove these folders"
            )
        return self.relabel(positions, other.classes)

    def split_holdout(self, share: float) -> tuple[ImageSet, ImageSet]:
        """Set the same evenly spaced images of every class aside, whatever the machine or the seed.

        Args:
            share: Part of each class to set aside, 0 to 1; at least one image of each class that has two.

        Returns:
            The rest, and the images set aside.
        """
        by_class: dict[int, list[int]] = {}
        for index, label in enumerate(self.labels):
            by_class.setdefault(label, []).append(index)
        held: set[int] = set()
        for members in by_class.values():
            count = min(max(1, round(share * len(members))), len(members) - 1)
            held.update(members[(2 * j + 1) * len(members) // (2 * count)] for j in range(count))
        rest = self.subset(index for index in range(len(self)) if index not in held)
        return rest, self.subset(sorted(held))


def evenly_spaced(total: int, n: int) -> list[int]:
    """Choose at most `n` of `total` positions, evenly spaced from the first to the last.

    Example:
        >>> evenly_spaced(10, 4)
        [0, 3, 6, 9]
    """
    chosen: list[int] = np.linspace(0, total - 1, min(n, total)).astype(np.int64).tolist()
    return chosen


def open_data(
    sources: DataSource | Sequence[DataSource], *, split: Split | None = None, unlabelled: bool = False
) -> ImageSet:
    """Find the images of one or several DATA arguments.

    Args:
        sources: `digits`, a folder, a zip, or several of them, which are joined by class name; with `unlabelled`
            also files, which are taken for images whatever their extension.
        split: Which split to take where the sources together have more than one; no effect where they have none or
            only one. Without it, all images are taken.
        unlabelled: Take images from anywhere and give none a class, for calibration and prediction.

    Raises:
        DataError: If a source does not exist or cannot be used, or holds no image (in class folders).

    Example:
        >>> digits = open_data("digits", split="val")
        >>> len(digits), digits.classes[:3]
        (355, ('0', '1', '2'))
    """
    return _list_files(sources, unlabelled=unlabelled).images(split)


def open_train_and_val(sources: DataSource | Sequence[DataSource]) -> tuple[ImageSet, ImageSet | None]:
    """Find what `open_data` finds for split `train`, and for split `val`, and list every source only once.

    The latter is None where the sources do not have both. Raises `DataError` as `open_data` does.
    """
    files = _list_files(sources, unlabelled=False)
    return files.images("train"), files.images("val") if {"train", "val"} <= set(files.splits) else None


def _list_files(sources: DataSource | Sequence[DataSource], *, unlabelled: bool) -> _Files:
    if not (listed := [sources] if isinstance(sources, (str, os.PathLike)) else list(sources)):
        raise DataError("expected at least one folder or zip of images, got none")
    files = _Files(tuple(open_source(source, any_file=unlabelled) for source in listed), unlabelled)
    for number, source in enumerate(files.sources):
        listing = source.list_files()
        files.ignored += listing.ignored
        found, found_folders = _arrange(number, source.name, listing)
        files.entries += found
        files.folders |= found_folders
    return files


class _Entry(NamedTuple):
    source: int
    key: Any
    name: str
    split: Split | None
    class_name: str | None


@dataclass
class _Files:
    """Everything that the sources of a DATA argument hold."""

    sources: tuple[Source, ...]
    unlabelled: bool
    entries: list[_Entry] = dataclasses.field(default_factory=list)
    ignored: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    folders: set[tuple[Split | None, str]] = dataclasses.field(default_factory=set)

    @property
    def splits(self) -> tuple[Split, ...]:
        return tuple(sorted({entry.split for entry in self.entries if entry.split}))

    def images(self, split: Split | None) -> ImageSet:
        entries, folders, ignored = self.entries, self.folders, list(self.ignored)
        has_split = split is not None and len(self.splits) > 1
        if has_split:
            # Images of a source without split folders join those to train on.
            entries = [entry for entry in entries if (entry.split or "train") == split]
            folders = {folder for folder in folders if (folder[0] or "train") == split}
        if not self.unlabelled:
            ignored += [(entry.name, "outside the class folders") for entry in entries if entry.class_name is None]
            entries = [entry for entry in entries if entry.class_name is not None]
            entries.sort(key=lambda entry: entry.class_name or "")
        name = " + ".join(source.name for source in self.sources)
        if not entries:
            raise DataError(_no_images(name, split if has_split else None, ignored, self.unlabelled))
        classes = () if self.unlabelled else tuple(sorted({entry.class_name or "" for entry in entries}))
        positions = {class_name: index for index, class_name in enumerate(classes)}
        empty = {class_name for _, class_name in folders} - set(classes)
        return ImageSet(
            name=name, classes=classes, splits=self.splits, ignored=tuple(ignored),
            items=tuple(ImageItem(entry.name, positions.get(entry.class_name or "")) for entry in entries),
            empty_classes=() if self.unlabelled else tuple(sorted(empty)),
            _sources=self.sources, _keys=tuple((entry.source, entry.key) for entry in entries),
        )  # fmt: skip


def _arrange(number: int, source_name: str, listing: Listing) -> tuple[list[_Entry], set[tuple[Split | None, str]]]:
    """Read splits and classes off the paths of one source; also returns its class folders, empty ones included."""
    paths = [parts for parts, _ in listing.files]
    depth = 1 if _has_wrapper(paths) else 0
    has_splits = bool(paths) and all(
        len(parts) > depth + 1 and parts[depth].lower() in _SPLIT_FOLDERS for parts in paths
    )
    class_depth = depth + has_splits

    def split_of(parts: tuple[str, ...]) -> Split | None:
        return _SPLIT_FOLDERS.get(parts[depth].lower()) if has_splits else None

    entries = [
        _Entry(
            number, key, "/".join((source_name, *parts)), split_of(parts),
            parts[class_depth] if len(parts) > class_depth + 1 else None,
        )
        for parts, key in listing.files
    ]  # fmt: skip
    folders = {(split_of(parts), parts[class_depth]) for parts in listing.folders if len(parts) == class_depth + 1}
    return entries, folders


def _has_wrapper(paths: list[tuple[str, ...]]) -> bool:
    # One folder around everything that itself holds only folders; a lone `train/` is a split, not a wrapper.
    tops = {parts[0] for parts in paths if parts}
    return len(tops) == 1 and all(len(parts) >= 3 for parts in paths) and next(iter(tops)).lower() not in _SPLIT_FOLDERS


def _no_images(name: str, split: str | None, ignored: list[tuple[str, str]], unlabelled: bool) -> str:
    wanted = "images" if unlabelled else "images in class folders (<class>/<image>)"
    message = f"{name}: expected {wanted}{f' for split {split!r}' if split else ''}, got none"
    if ignored:
        message += f"; ignored {len(ignored)}, such as {ignored[0][0]} ({ignored[0][1]})"
    return message


def _shorten(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:_MAX_NAMED])
    return shown if len(names) <= _MAX_NAMED else f"{shown} and {len(names) - _MAX_NAMED} more"
