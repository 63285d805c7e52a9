"""Sets larger than memory and disk: tar shards in WebDataset's layout, beside an index, in a folder or behind HTTP.

A shard is a plain tar of `KEY.jpg` (or another image extension) and `KEY.cls`, the number of the class; the index is a
JSON file that names the shards and counts their images, so that the length of an epoch is known before the first byte
of a shard is read:

    {"format": 1, "classes": {"cat": 610, "dog": 590}, "shards": {"00000.tar": 1000, "00001.tar": 200}}

No torch here; `shard_loader` reads them.

Use this when a data set does not fit on the machine that trains, or lies on a slow disk as many small files.
"""

from __future__ import annotations

import json
import os
import re
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from ..errors import DataError, ImageError, MissingDependencyError
from ..files import atomic_write
from .imageset import ImageItem, ImageSet
from .sources import Listing

__all__ = ["INDEX_SUFFIX", "ShardSource", "is_shard_index", "open_shards", "shard_source", "write_shards"]

INDEX_SUFFIX = ".json"
_FORMAT = 1
_MAX_INDEX_BYTES = 64 << 20
_MAX_IMAGES = 1 << 28
_SHARD_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,200}\.tar")
_TIMEOUT_S = 30


@dataclass
class ShardSource:
    """Where shards lie; their images can be read one after the other only."""

    name: str
    base: str
    """Folder or URL of the index, with a slash at its end."""
    classes: tuple[str, ...]
    """In the order of the shards' class numbers."""
    shards: tuple[tuple[str, int], ...]
    """Name and images of each shard."""

    @property
    def urls(self) -> tuple[str, ...]:
        """Paths or URLs of all shards."""
        return tuple(self.base + name for name, _ in self.shards)

    def list_files(self) -> Listing:
        """List nothing: shards have no files of their own."""
        return Listing()

    def read(self, key: Any, limit: int | None = None) -> bytes:
        """Refuse: see the class."""
        raise ImageError(f"{self.name}: images of shards are read in order, not by number")

    def size_bytes(self, key: Any) -> int:
        """Say nothing: see the class."""
        return 0


def shard_source(images: ImageSet) -> ShardSource | None:
    """The shards that a set's images lie in; None if they lie elsewhere."""
    for source in images._sources:
        if isinstance(source, ShardSource):
            return source
    return None


def is_shard_index(source: object) -> bool:
    """Tell whether a DATA argument names the index of shards."""
    return isinstance(source, (str, os.PathLike)) and os.fspath(source).endswith(INDEX_SUFFIX)


def open_shards(location: str | os.PathLike[str]) -> ImageSet:
    """Read the index of shards.

    Args:
        location: Path or http(s) URL of the JSON file.

    Raises:
        DataError: If it cannot be read, or is no index of shards.
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
    source = ShardSource(text, text[: text.rfind("/") + 1], tuple(counts), tuple(shards.items()))
    items = [ImageItem(text, label) for label, count in enumerate(counts.values()) for _ in range(count)]
    return ImageSet(name=text, classes=source.classes, items=tuple(items), splits=("train",), _sources=(source,))


def _read_index(location: str) -> bytes:
    if urlsplit(location).scheme in ("http", "https"):
        with urllib.request.urlopen(location, timeout=_TIMEOUT_S) as stream:
            data: bytes = stream.read(_MAX_INDEX_BYTES)
        return data
    path = Path(location)
    if path.exists() and not path.is_file():
        raise IsADirectoryError("expected a file, got a folder or a device")
    with path.open("rb") as file:
        return file.read(_MAX_INDEX_BYTES)


def write_shards(
    images: ImageSet,
    folder: str | os.PathLike[str],
    *,
    images_per_shard: int = 1000,
    seed: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Pack a set into shards, in random order, so that every shard holds all classes; images keep their bytes.

    Args:
        images: The set, with classes.
        folder: Where the shards and `index.json` go; made if it does not exist.
        images_per_shard: Images in a shard; a shard should have tens to hundreds of megabytes.
        seed: Of the order.
        on_progress: Called now and then with the number of images done and of all.

    Returns:
        Path of the index.

    Raises:
        DataError: If not one image can be read.
        MissingDependencyError: If webdataset is not installed.
    """
    try:
        from webdataset import TarWriter
    except ImportError:
        raise MissingDependencyError("webdataset", "webdataset") from None
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    labels, counts, shards = images.labels, dict.fromkeys(images.classes, 0), {}
    order = np.random.default_rng(seed).permutation(len(images)).tolist()
    for number, start in enumerate(range(0, len(order), images_per_shard)):
        name = f"{number:05d}.tar"
        written = 0
        with atomic_write(target / name) as stream, TarWriter(stream, encoder=False, mtime=0) as tar:
            for place, index in enumerate(order[start : start + images_per_shard], start=start):
                try:
                    data = images.read(index)
                except ImageError:
                    continue
                suffix = Path(images.items[index].name).suffix.lower().lstrip(".") or "jpg"
                tar.write({"__key__": f"{place:09d}", suffix: data, "cls": str(labels[index]).encode()})
                counts[images.classes[labels[index]]] += 1
                written += 1
        if written:
            shards[name] = written
        if on_progress:
            on_progress(min(start + images_per_shard, len(order)), len(order))
    if not shards:
        raise DataError(f"{images.name}: expected readable images, got none")
    if empty := [name for name, count in counts.items() if not count]:
        raise DataError(f"{images.name}: expected readable images of every class, got none of {empty[0]}")
    index_path = target / f"index{INDEX_SUFFIX}"
    with atomic_write(index_path) as stream:
        table = {"format": _FORMAT, "classes": counts, "shards": shards}
        stream.write(json.dumps(table, indent=1, ensure_ascii=False).encode("utf-8", "backslashreplace"))
    return index_path
