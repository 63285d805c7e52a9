"""Labelled images: which files belong to which class and split, read lazily.

`layout.py` has the rules for the folders of one source; several sources are joined by class name. No image is decoded
here.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from ..errors import DataError
from ..labels import Labels
from ..text import match_key, nfc
from .layout import Split, read_layout, split_of
from .opening import open_source
from .sources import ALREADY_LISTED, Listing, NoImages, Source, ZipSource

__all__ = [
    "DataSource", "ImageItem", "ImageSet", "evenly_spaced", "open_data", "open_everything", "open_train_and_val",
    "summed_up",
]  # fmt: skip

DataSource = str | os.PathLike[str]

_MAX_NAMED = 5


class ImageItem(NamedTuple):
    """One image: its name for messages, and the position of its class in `ImageSet.classes`."""

    name: str
    label: int | None


class _HasClasses(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def classes(self) -> tuple[str, ...]: ...


@dataclass(frozen=True)
class ImageSet:
    """Images with labels, in the same order on every machine; can be pickled for worker processes."""

    name: str
    classes: tuple[str, ...]
    """Class names, sorted; empty for unlabelled images."""
    items: tuple[ImageItem, ...]
    splits: tuple[Split, ...]
    """All splits that the sources have (not only the one chosen); empty if they have no split folders."""
    empty_classes: tuple[str, ...] = ()
    """Class folders without a single image; they do not count as classes."""
    ignored: tuple[tuple[str, str], ...] = ()
    """Names of the files and folders that are ignored, each with the reason."""
    notes: tuple[str, ...] = ()
    """Remarks on how the folders were read, for people."""
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
        """Return an image's encoded bytes, or the first `limit` of them; raises `ImageError` like `Source.read`."""
        source, key = self._keys[index]
        return self._sources[source].read(key, limit)

    def size_bytes(self, index: int) -> int:
        """Return the size of an image's file; 0 if it is gone."""
        source, key = self._keys[index]
        return self._sources[source].size_bytes(key)

    def remarks(self) -> list[str]:
        """Describe in lines of text how the folders were read, and what was ignored."""
        left_out = [f"{name} ({reason})" for name, reason in self.ignored]
        return [*self.notes, *summed_up("ignored", left_out)]

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

    def joined(self, other: ImageSet) -> ImageSet:
        """Append another set, with its classes renumbered as in this set.

        Raises:
            DataError: If a class of the other set is missing in this one.
        """
        behind = other.with_classes_of(self) if self.classes != other.classes else other
        keys = tuple((source + len(self._sources), key) for source, key in behind._keys)
        return dataclasses.replace(
            self, items=self.items + behind.items, _keys=self._keys + keys, _sources=self._sources + behind._sources
        )

    def sample(self, n: int) -> ImageSet:
        """Keep at most `n` images (`n` at least 1), evenly spaced over the set, including the first and the last.

        Example:
            >>> digits = open_data("digits", split="val")
            >>> [item.name for item in digits.sample(3).items]
            ['digits/val/0/0036.png', 'digits/val/4/1788.png', 'digits/val/9/1795.png']
        """
        return self.subset(evenly_spaced(len(self), n))

    def relabel(self, positions: Mapping[str, int], classes: Sequence[str]) -> ImageSet:
        """Renumber the classes as in another set or a model.

        Args:
            positions: New position of every class of this set, for example from `Labels.match`.
            classes: Names of all classes in the new order.
        """
        table = [positions[name] for name in self.classes]
        items = tuple(item._replace(label=None if item.label is None else table[item.label]) for item in self.items)
        return dataclasses.replace(self, items=items, classes=tuple(classes))

    def with_classes_of(self, other: _HasClasses) -> ImageSet:
        """Renumber the classes as in `other`, by name.

        Raises:
            DataError: If a class of this set is missing in `other`.
        """
        try:
            positions = Labels(tuple(other.classes)).match(self.classes)
        except DataError:
            unknown = [name for name in self.classes if match_key(name) not in set(map(match_key, other.classes))]
            raise DataError(
                f"{self.name}: expected only classes of {other.name} ({_shorten(other.classes)}),"
                f" got also {_shorten(unknown or self.classes)}: rename or remove these folders"
            ) from None
        return self.relabel(positions, other.classes)

    def split_holdout(self, share: float, *, moved: Iterable[int] = ()) -> tuple[ImageSet, ImageSet]:
        """Hold out evenly spaced images of every class; the choice depends on neither machine nor seed.

        Args:
            share: Part of each class to hold out, 0 to 1; at least one image of each class with two or more.
            moved: Positions of images that go to the opposite side.

        Returns:
            The remaining images, and the images held out.
        """
        held = self.holdout(share) ^ {index for index in moved if index < len(self)}
        rest = self.subset(index for index in range(len(self)) if index not in held)
        return rest, self.subset(sorted(held))

    def holdout(self, share: float) -> set[int]:
        """Positions of the images that `split_holdout` holds out."""
        by_class: dict[int, list[int]] = {}
        for index, label in enumerate(self.labels):
            by_class.setdefault(label, []).append(index)
        held: set[int] = set()
        for members in by_class.values():
            count = min(max(1, round(share * len(members))), len(members) - 1)
            held.update(members[(2 * j + 1) * len(members) // (2 * count)] for j in range(count))
        return held


def summed_up(problem: str, names: Sequence[str]) -> list[str]:
    """One line about some names, of which the first are shown; no line without names."""
    if not names:
        return []
    more = f"; and {len(names) - _MAX_NAMED} more" if len(names) > _MAX_NAMED else ""
    return [f"{problem} ({len(names)}): {'; '.join(names[:_MAX_NAMED])}{more}"]


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
        sources: `digits`, a folder, a zip, a table of labels (`.csv`), or several of these, joined by class name. With
            `unlabelled` also files, which are read as images whatever their extension.
        split: The split to return if the sources together have more than one; otherwise it has no effect. By default,
            the images of all splits.
        unlabelled: Find images at any depth, and give them no class, for calibration and prediction.

    Raises:
        DataError: If a source does not exist or cannot be used, or contains no image (in class folders).

    Example:
        >>> digits = open_data("digits", split="val")
        >>> len(digits), digits.classes[:3]
        (355, ('0', '1', '2'))
    """
    return _list_files(sources, unlabelled=unlabelled).images(split)


def open_train_and_val(sources: DataSource | Sequence[DataSource]) -> tuple[ImageSet, ImageSet | None]:
    """Return the results of `open_data` for the splits `train` and `val`, but list every source only once.

    The latter is None unless the sources have both. Raises `DataError` like `open_data`.
    """
    files = _list_files(sources, unlabelled=False)
    train = files.images("train")
    for split in set(files.splits) - {"train", "val"} if len(files.splits) > 1 else ():
        n_images = sum(entry.split == split for entry in files.entries)
        train = dataclasses.replace(
            train, notes=(*train.notes, f"split {split} is not used; number of images: {n_images}")
        )
    return train, files.images("val") if {"train", "val"} <= set(files.splits) else None


def open_everything(sources: Sequence[DataSource]) -> ImageSet:
    """Find the images of some DATA arguments, without classes; all other files become images that cannot be read.

    Raises:
        DataError: If a source does not exist, or all of them are empty.
    """
    return _list_files(sources, unlabelled=True).everything()


def _list_files(sources: DataSource | Sequence[DataSource], *, unlabelled: bool) -> _Files:
    if not (listed := [sources] if isinstance(sources, (str, os.PathLike)) else list(sources)):
        raise DataError("expected at least one folder or zip of images, got none")
    opened = [open_source(source, any_file=unlabelled) for source in listed]
    # If train/ and val/ are given separately, they are splits according to their names.
    own = [split_of(Path(source).stem) for source in listed] if len({str(source) for source in listed}) > 1 else []
    own = own if len({*own} - {None}) > 1 else [None] * len(listed)
    files = _Files(opened, unlabelled)
    for number, (source, split) in enumerate(zip(opened, own, strict=True)):
        listing = source.list_files()
        if not listing.files and isinstance(source, ZipSource) and unlabelled:
            source = opened[number] = NoImages(
                source.path, "expected an image or a zip of images, got a zip without any"
            )
            listing = source.list_files()
        files.notes += [f"{source.name} is read as split {split}, because of its name"] if split else []
        files.ignored += listing.ignored
        files.arrange(number, source.name, listing, split)
    files.join_classes()
    return files


class _Entry(NamedTuple):
    source: int
    key: Any
    name: str
    split: Split | None
    class_name: str | None
    reason: str


@dataclass
class _Files:
    """Everything that the sources of a DATA argument hold."""

    sources: list[Source]
    unlabelled: bool
    entries: list[_Entry] = dataclasses.field(default_factory=list)
    ignored: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    folders: set[tuple[Split | None, str]] = dataclasses.field(default_factory=set)
    notes: list[str] = dataclasses.field(default_factory=list)

    @property
    def name(self) -> str:
        return " + ".join(source.name for source in self.sources)

    @property
    def splits(self) -> tuple[Split, ...]:
        # Images of a source without split folders become training images.
        found = {entry.split or "train" for entry in self.entries if entry.split or entry.class_name}
        return tuple(sorted(found)) if any(entry.split for entry in self.entries) else ()

    def arrange(self, number: int, name: str, listing: Listing, own: Split | None) -> None:
        """Read splits and classes off the paths of one source, which may be a split itself; empty folders included."""
        layout = read_layout([parts for parts, _ in listing.files])
        if layout.problem and not self.unlabelled:
            raise DataError(f"{name}: {layout.problem}")
        self.notes += [f"{name}: {layout.note}"] if layout.note else []
        for parts, key in listing.files:
            split, class_name, reason = layout.place(parts)
            class_name = class_name and nfc(class_name)
            self.entries.append(_Entry(number, key, "/".join((name, *parts)), split or own, class_name, reason))
        for parts in listing.folders:
            place = layout.place((*parts, ""))
            if place.class_name and layout.place(parts).class_name is None:
                self.folders.add((place.split or own, nfc(place.class_name)))

    def join_classes(self) -> None:
        """Give folders of different sources and splits one name where their names only differ in case and the like."""
        places: dict[tuple[int, bool], set[str]] = {}
        for entry in self.entries:
            if entry.class_name is not None:
                places.setdefault((entry.source, entry.split not in (None, "train")), set()).add(entry.class_name)
        alike: dict[str, dict[str, None]] = {}
        for _, names in sorted(places.items()):
            for name in sorted(names):
                alike.setdefault(match_key(name), {})[name] = None
        chosen: dict[str | None, str] = {}
        for same in alike.values():
            if len(same) > 1 and all(len(same.keys() & found) < 2 for found in places.values()):
                chosen |= dict.fromkeys(same, next(iter(same)))
        self.entries = [
            entry._replace(class_name=chosen.get(entry.class_name, entry.class_name)) for entry in self.entries
        ]
        self.folders = {(split, chosen.get(name, name)) for split, name in self.folders}

    def everything(self) -> ImageSet:
        entries = [entry._replace(class_name=None) for entry in self.entries]
        left = NoImages(Path())
        problems = [
            _Entry(len(self.sources), f"ignored: {reason}", name, None, None, "")
            for name, reason in self.ignored
            if reason != ALREADY_LISTED
        ]
        if not entries and not problems:
            raise DataError(_no_images(self.name, None, [], self.unlabelled))
        return self._set([*self.sources, left], [*entries, *problems], (), ())

    def images(self, split: Split | None) -> ImageSet:
        entries, folders, ignored = self.entries, self.folders, list(self.ignored)
        has_split = split is not None and len(self.splits) > 1
        if not self.unlabelled:
            ignored += [(entry.name, entry.reason) for entry in entries if entry.class_name is None]
            entries = sorted((e for e in entries if e.class_name is not None), key=lambda e: e.class_name or "")
        if has_split:
            entries = [entry for entry in entries if (entry.split or "train") == split]
            folders = {folder for folder in folders if (folder[0] or "train") == split}
        if all(isinstance(self.sources[entry.source], NoImages) for entry in entries):
            message = _no_images(self.name, split if has_split else None, ignored, self.unlabelled)
            raise DataError(message + self._advice(split if has_split else None))
        classes = () if self.unlabelled else tuple(sorted({entry.class_name or "" for entry in entries}))
        empty = set() if self.unlabelled else {class_name for _, class_name in folders} - set(classes)
        made = self._set(self.sources, entries, classes, ignored)
        return dataclasses.replace(made, empty_classes=tuple(sorted(empty)))

    def _set(
        self, sources: Sequence[Source], entries: Sequence[_Entry], classes: tuple[str, ...], ignored: Sequence[Any]
    ) -> ImageSet:
        positions = {class_name: index for index, class_name in enumerate(classes)}
        return ImageSet(
            name=self.name, classes=classes, splits=self.splits, ignored=tuple(ignored), notes=tuple(self.notes),
            items=tuple(ImageItem(entry.name, positions.get(entry.class_name or "")) for entry in entries),
            _sources=tuple(sources), _keys=tuple((entry.source, entry.key) for entry in entries),
        )  # fmt: skip

    def _advice(self, split: str | None) -> str:
        folders: dict[str, None] = {}
        for entry in self.entries:
            if entry.split and entry.class_name and split:
                parts = entry.name.removeprefix(f"{self.name}/").split("/")
                depth = next((depth for depth, part in enumerate(parts, 1) if split_of(part) == entry.split), 1)
                folders["/".join(parts[:depth]) + "/"] = None
        if not folders:
            return ""
        first, *others = sorted(folders)
        such = f"name one of these, such as {self.name}/{first}" if Path(self.name).is_dir() else "unpack and name one"
        return f"; it has {' and '.join([first, *others[:2]])}: {such}"


def _no_images(name: str, split: str | None, ignored: list[tuple[str, str]], unlabelled: bool) -> str:
    wanted = "images" if unlabelled else "images in class folders (<class>/<image>)"
    message = f"{name}: expected {wanted}{f' for split {split!r}' if split else ''}, got none"
    if ignored:
        message += f"; ignored {len(ignored)}, such as {ignored[0][0]} ({ignored[0][1]})"
    return message


def _shorten(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:_MAX_NAMED])
    return shown if len(names) <= _MAX_NAMED else f"{shown} and {len(names) - _MAX_NAMED} more"
