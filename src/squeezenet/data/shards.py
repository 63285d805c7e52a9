"""Sets larger than memory and disk: tar shards in WebDataset's layout with an index, in a folder or served over HTTP.

A shard is a plain tar of `KEY.jpg` (or another image extension) and `KEY.cls`, the number of the class. The index names
the shards and counts their images:

    {"format": 1, "classes": {"cat": 610, "dog": 590}, "shards": {"00000.tar": 1000, "00001.tar": 200}}

No memory is allocated in proportion to the number of images that an index states. `training.feed.shards` reads shards.
"""

from __future__ import annotations

import json
import os
import re
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import numpy as np

from ..errors import DataError, ImageError, MissingDependencyError
from ..files import IMAGE_EXTENSIONS, atomic_write
from ..progress import Reporter, reporter_of
from .decode import Unreadable
from .imageset import ImageSet

if TYPE_CHECKING:
    from webdataset import TarWriter

__all__ = ["INDEX_SUFFIX", "PackedShards", "ShardSet", "is_shard_index", "open_shards", "write_shards"]

INDEX_SUFFIX = ".json"
_FORMAT = 1
_MAX_INDEX_BYTES = 64 << 20
_MAX_IMAGES = 1 << 28
_SHARD_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,200}\.tar")
_TIMEOUT_S = 30


@dataclass(frozen=True, kw_only=True)
class ShardSet:
    """Labelled images in tar shards, which can only be read sequentially.

    Example:
        >>> images = ShardSet(
        ...     name="index.json", classes=("cat", "dog"), counts=(610, 590), numbers=(0, 1),
        ...     shards=(("00000.tar", 1000), ("00001.tar", 200)),
        ... )
        >>> len(images), images.class_counts()
        (1200, {'cat': 610, 'dog': 590})
    """

    name: str
    """Path or URL of the index."""
    classes: tuple[str, ...]
    counts: tuple[int, ...]
    """Images of each class that is stored in the shards."""
    numbers: tuple[int, ...]
    """Position in `classes` of each class that is stored in the shards."""
    shards: tuple[tuple[str, int], ...]
    """Path or URL of each shard, and the number of images in it."""

    def __len__(self) -> int:
        """Count the images."""
        return sum(self.counts)

    def class_counts(self) -> dict[str, int]:
        """Count the images of every class, in class order."""
        found = dict.fromkeys(self.classes, 0)
        for number, count in zip(self.numbers, self.counts, strict=True):
            found[self.classes[number]] += count
        return found

    def relabel(self, positions: Mapping[str, int], classes: Sequence[str]) -> ShardSet:
        """Number the classes as another set or a model does; as `ImageSet.relabel`."""
        numbers = tuple(positions[self.classes[number]] for number in self.numbers)
        return replace(self, classes=tuple(classes), numbers=numbers)


def is_shard_index(source: object) -> bool:
    """Return whether a DATA argument names the index of shards."""
    return isinstance(source, (str, os.PathLike)) and os.fspath(source).endswith(INDEX_SUFFIX)


def open_shards(location: str | os.PathLike[str]) -> ShardSet:
    """Read the index of shards.

    Args:
        location: Path or http(s) URL of the JSON file.

    Raises:
        DataError: If it cannot be read, or is not an index of shards.
    """
    text = os.fspath(location)
    try:
        index = json.loads(_read_index(text))
        counts, shards = index["classes"], index["shards"]
        if index["format"] != _FORMAT or not isinstance(counts, dict) or not isinstance(shards, dict):
            raise ValueError(f"expected format {_FORMAT}")
        numbers = [*counts.values(), *shards.values()]
        if not counts or not shards or not all(type(n) is int and 0 < n <= _MAX_IMAGES for n in numbers):
            raise ValueError("expected positive numbers of images")
        if sum(counts.values()) != sum(shards.values()) or sum(counts.values()) > _MAX_IMAGES:
            raise ValueError("expected classes and shards to count the same images")
        if odd := [name for name in shards if not _SHARD_NAME.fullmatch(name)]:
            raise ValueError(f"expected names like 00000.tar, got {odd[0][:80]!r}")
    except OSError as error:
        raise DataError(f"{text}: cannot be read ({error})") from None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"{text}: expected the index of shards that `squeezenet shards` writes ({error})") from None
    base = text[: text.rfind("/") + 1]
    return ShardSet(
        name=text, classes=tuple(counts), counts=tuple(counts.values()), numbers=tuple(range(len(counts))),
        shards=tuple((base + name, n_images) for name, n_images in shards.items()),
    )  # fmt: skip


def _read_index(location: str) -> bytes:
    if urlsplit(location).scheme in ("http", "https"):
        with urllib.request.urlopen(location, timeout=_TIMEOUT_S) as stream:
            data: bytes = stream.read(_MAX_INDEX_BYTES)
        return data
    path = Path(location)
    if path.exists() and not path.is_file():
        raise IsADirectoryError("expected a file, got a folder or a device")
    with path.open("rb") as file:
        return file.read(min(_MAX_INDEX_BYTES, os.fstat(file.fileno()).st_size))  # reading allocates what is asked for


@dataclass(frozen=True, kw_only=True)
class PackedShards:
    """The result of `write_shards`; `train` accepts `index` as DATA. Images in `unreadable` are not in any shard."""

    index: Path
    n_images: int
    n_shards: int
    unreadable: tuple[Unreadable, ...]


def write_shards(
    images: ImageSet,
    folder: str | os.PathLike[str],
    *,
    images_per_shard: int = 1000,
    progress: Reporter | bool = True,
) -> PackedShards:
    """Pack a set into shards, in random order, so that every shard holds all classes; images keep their bytes.

    Args:
        images: The set, with classes.
        folder: Folder for the shards and `index.json`; created if it does not exist.
        images_per_shard: Number of images per shard; a shard should have tens to hundreds of megabytes.
        progress: A reporter; `True` for one on standard error, `False` for silence.

    Raises:
        DataError: If a class has no readable image.
        MissingDependencyError: If webdataset is not installed.

    Example:
        >>> import tempfile
        >>> from squeezenet import open_data
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_shards(open_data("digits", split="val"), folder).n_images
        355
    """
    with MissingDependencyError.named():
        from webdataset import TarWriter
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    counts, shards, unreadable = dict.fromkeys(images.classes, 0), {}, list[Unreadable]()
    order = np.random.default_rng(0).permutation(len(images)).tolist()
    with reporter_of(progress).task("packing", len(order)) as shown:
        for number, start in enumerate(range(0, len(order), images_per_shard)):
            name, places = f"{number:05d}.tar", range(start, min(start + images_per_shard, len(order)))
            with atomic_write(target / name) as stream, TarWriter(stream, encoder=False, mtime=0) as tar:
                written = list(_pack(images, [(place, order[place]) for place in places], tar, unreadable))
            for label in written:
                counts[images.classes[label]] += 1
            if written:
                shards[name] = len(written)
            shown.update(places.stop)
    if empty := [name for name, count in counts.items() if not count]:
        raise DataError(f"{images.name}: expected readable images of every class, got none of {empty[0]}")
    table = {"format": _FORMAT, "classes": counts, "shards": shards}
    with atomic_write(index := target / f"index{INDEX_SUFFIX}") as stream:
        stream.write(json.dumps(table, indent=1, ensure_ascii=False).encode("utf-8", "backslashreplace"))
    return PackedShards(index=index, n_images=sum(shards.values()), n_shards=len(shards), unreadable=tuple(unreadable))


def _pack(
    images: ImageSet, places: Sequence[tuple[int, int]], tar: TarWriter, unreadable: list[Unreadable]
) -> Iterator[int]:
    """Write images to a shard, given by their place among all and their index; yields their labels."""
    labels = images.labels
    for place, index in places:
        item = images.items[index]
        try:
            data = images.read(index)
        except ImageError as error:
            unreadable.append(Unreadable(item.name, error.reason))
            continue
        suffix = Path(item.name).suffix.lower()
        key = suffix[1:] if suffix in IMAGE_EXTENSIONS else "jpg"  # what reads it goes by the bytes
        tar.write({"__key__": f"{place:09d}", key: data, "cls": str(labels[index]).encode()})
        yield int(labels[index])
